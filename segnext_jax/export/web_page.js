// From a photograph to its classes, by onnxruntime-web; result_page.js does the rest.
const element = (id) => document.getElementById(id);
const metadata = await (await fetch("metadata.json")).json();
const { classes, colours } = metadata;
let result = null;

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

async function openSession() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  for (const provider of adapter ? ["webgpu", "wasm"] : ["wasm"]) {
    try {
      const ort = await import(`./onnxruntime/ort.${provider}.min.mjs`);
      ort.env.logLevel = "error";
      ort.env.wasm.wasmPaths = new URL("onnxruntime/", location.href).href;
      // Browsers give threads only to sites that send certain headers.
      ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
      const session = await ort.InferenceSession.create(metadata.files.onnx.file, {
        executionProviders: [provider],
        graphOptimizationLevel: "all",
      });
      return { ort, session, provider };
    } catch (error) {
      if (provider === "wasm") throw error;
      console.warn(`without WebGPU: ${error}`);
    }
  }
}

// Evaluation's rule, see metadata.resize; a network of fixed size takes no other.
function inputSize(height, width) {
  const [, fixedHeight, fixedWidth] = metadata.input.shape;
  if (typeof fixedHeight === "number") return [fixedHeight, fixedWidth];
  const { fit_into: bounds, multiple_of: multiple } = metadata.resize;
  const factor = bounds
    ? Math.min(
        Math.max(...bounds) / Math.max(height, width),
        Math.min(...bounds) / Math.min(height, width),
      )
    : 1;
  return [height, width].map((side) => {
    const fitted = Math.max(1, Math.floor(side * factor + 0.5));
    return Math.ceil(fitted / multiple) * multiple;
  });
}

function canvasOf(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}

// A picture whose pixels are made from class ids.
function paint(labels, width, height, pixelOf) {
  const [canvas, context] = canvasOf(width, height);
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const table = classes.map((_, id) => pixelOf(id));
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[labels[i]];
  context.putImageData(image, 0, 0);
  return canvas;
}

const opaque = (red, green, blue) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;

async function look(blob) {
  const photograph = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const [height, width] = inputSize(photograph.height, photograph.width);
  const [input, context] = canvasOf(width, height);
  // Bilinear without antialiasing, as in training.
  context.imageSmoothingQuality = "low";
  context.drawImage(photograph, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < pixels.length; i += 4) {
    rgb[j++] = pixels[i];
    rgb[j++] = pixels[i + 1];
    rgb[j++] = pixels[i + 2];
  }
  const { ort, session, provider } = await network;
  const start = performance.now();
  const outputs = await session.run({
    [metadata.input.name]: new ort.Tensor("uint8", rgb, [1, height, width, 3]),
  });
  const labels = outputs[metadata.output.name].data;
  const seconds = (performance.now() - start) / 1000;
  result = { labels, width, height, photograph };
  show(result);
  const engine = provider === "webgpu" ? "the graphics processor" : "WebAssembly";
  say(`Seen at ${width} × ${height} in ${seconds.toFixed(1)} s, by ${engine}.`);
}

function show({ labels, width, height, photograph }) {
  const counts = new Array(classes.length).fill(0);
  for (const id of labels) counts[id]++;
  const shown = counts
    .map((count, id) => ({ id, share: count / labels.length }))
    .filter(({ share }) => share > 0)
    .sort((a, b) => b.share - a.share);
  const opacity = document.querySelector(".segnext-slider input")?.value ?? 0.5;
  const [photo, context] = canvasOf(photograph.width, photograph.height);
  context.drawImage(photograph, 0, 0);
  const page = document.createElement("div");
  page.className = "segnext";
  page.dataset.classes = JSON.stringify(classes);
  page.innerHTML = `<div class="segnext-stage">
<img class="segnext-photo" alt="the photograph">
<img class="segnext-tint" alt="its classes">
<canvas class="segnext-mark" width="${width}" height="${height}"></canvas>
<img class="segnext-ids" alt="" hidden>
<output class="segnext-name" aria-live="polite"></output></div>
<label class="segnext-slider">Opacity
<input type="range" min="0" max="1" step="0.01" value="${opacity}"></label>
<ul class="segnext-legend"></ul>`;
  const part = (name) => page.querySelector(`.segnext-${name}`);
  part("stage").style.aspectRatio = `${width} / ${height}`;
  part("photo").src = photo.toDataURL("image/jpeg", 0.92);
  part("photo").style.objectFit = "fill";
  part("tint").src = paint(labels, width, height, (id) => opaque(...colours[id])).toDataURL();
  part("tint").style.opacity = opacity;
  part("ids").src = paint(labels, width, height, (id) => opaque(id, id, id)).toDataURL();
  for (const { id, share } of shown) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.dataset.id = id;
    const colour = document.createElement("span");
    colour.style.background = `rgb(${colours[id].join(" ")})`;
    const number = document.createElement("b");
    number.textContent = share < 0.001 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`;
    button.append(colour, `${classes[id]} `, number);
    const item = document.createElement("li");
    item.append(button);
    part("legend").append(item);
  }
  element("result").replaceChildren(page);
  element("downloads").hidden = false;
}

function save(canvas, name, type) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }, type);
}

// At the photograph's own size; ids and colours are not to be mixed.
function fullSize(pixelOf, opacity) {
  const { labels, width, height, photograph } = result;
  const [canvas, context] = canvasOf(photograph.width, photograph.height);
  if (opacity !== undefined) {
    context.drawImage(photograph, 0, 0);
    context.globalAlpha = opacity;
  }
  context.imageSmoothingEnabled = false;
  context.drawImage(paint(labels, width, height, pixelOf), 0, 0, canvas.width, canvas.height);
  return canvas;
}

element("labels").addEventListener("click", () => {
  save(fullSize((id) => opaque(id, id, id)), "labels.png", "image/png");
});
element("overlay").addEventListener("click", () => {
  const opacity = Number(document.querySelector(".segnext-slider input").value);
  save(fullSize((id) => opaque(...colours[id]), opacity), "overlay.jpg", "image/jpeg");
});

async function take(blob) {
  if (!blob) return;
  say("Looking …");
  // Painted before the work begins, which holds the page.
  await new Promise((resolve) => setTimeout(resolve, 50));
  try {
    await look(blob);
  } catch (error) {
    say(`This photograph could not be seen: ${error.message ?? error}`, true);
  }
}

for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => take(input.files[0]));
}
addEventListener("paste", (event) => take(event.clipboardData.files[0]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
addEventListener("dragleave", () => element("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});

element("title").textContent = `${metadata.network.name} ${metadata.network.variant}`;
element("about").textContent =
  `${classes.length} classes (${metadata.dataset}). ` + element("about").textContent;
const network = openSession();
try {
  await network;
  say("Ready.");
  // A link to an example: index.html?image=street.jpg
  const address = new URLSearchParams(location.search).get("image");
  if (address) await take(await (await fetch(address)).blob());
} catch (error) {
  say(`The network could not be loaded: ${error.message ?? error}`, true);
}
