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

// Sizes [height, width] by evaluation's rule, see metadata.resize: those that the
// photograph is resized to in turn, and the network's. One of fixed size takes no other.
function sizesFor(height, width) {
  const [, fixedHeight, fixedWidth] = metadata.input.shape;
  const fixed = [fixedHeight, fixedWidth];
  if (typeof fixedHeight === "number") return { passes: [fixed], outer: fixed };
  const { fit_into: bounds, multiple_of: multiple, alignment } = metadata.resize;
  const factor = bounds
    ? Math.min(
        Math.max(...bounds) / Math.max(height, width),
        Math.min(...bounds) / Math.min(height, width),
      )
    : 1;
  const fitted = [height, width].map((side) => Math.max(1, Math.floor(side * factor + 0.5)));
  const outer = fitted.map((side) => Math.ceil(side / multiple) * multiple);
  return { passes: alignment === "pad" ? [fitted] : [fitted, outer], outer };
}

// Pixels on both sides of each new one, and the second's weight in 1/2048; rounded as
// cv2 does, in single precision and half to even.
function taps(from, to) {
  const inside = (i) => Math.min(Math.max(i, 0), from - 1);
  return Array.from({ length: to }, (_, i) => {
    const place = Math.fround((i + 0.5) * (1 / (to / from)) - 0.5);
    const first = Math.floor(place);
    const part = Math.fround(place - first) * 2048;
    const weight = part % 1 === 0.5 ? 2 * Math.round(part / 2) : Math.round(part);
    return [inside(first), inside(first + 1), weight];
  });
}

// Bilinear without antialiasing, in the integers of cv2.INTER_LINEAR, as in training. A
// canvas rounds otherwise, which changes labels.
function resize({ bytes, size: [height, width] }, size) {
  const [newHeight, newWidth] = size;
  if (height === newHeight && width === newWidth) return { bytes, size };
  const across = new Int32Array(height * newWidth * 3);
  const columns = taps(width, newWidth);
  for (let y = 0, j = 0; y < height; y++) {
    const row = y * width * 3;
    for (const [left, right, weight] of columns) {
      for (let c = 0; c < 3; c++) {
        const a = bytes[row + 3 * left + c];
        const b = bytes[row + 3 * right + c];
        across[j++] = (a * (2048 - weight) + b * weight) >> 4;
      }
    }
  }
  const result = new Uint8Array(newHeight * newWidth * 3);
  const stride = 3 * newWidth;
  taps(height, newHeight).forEach(([top, bottom, weight], y) => {
    for (let x = 0; x < stride; x++) {
      const a = (across[top * stride + x] * (2048 - weight)) >> 16;
      const b = (across[bottom * stride + x] * weight) >> 16;
      result[y * stride + x] = (a + b + 2) >> 2;
    }
  });
  return { bytes: result, size };
}

// The rows of one size as those of another: padded, or cut off again.
function reshape(values, [height, width], [newHeight, newWidth], fill) {
  if (height === newHeight && width === newWidth) return values;
  const depth = fill.length;
  const result = new Uint8Array(newHeight * newWidth * depth);
  for (let i = 0; i < result.length; i++) result[i] = fill[i % depth];
  const length = Math.min(width, newWidth) * depth;
  for (let y = 0; y < Math.min(height, newHeight); y++) {
    const from = y * width * depth;
    result.set(values.subarray(from, from + length), y * newWidth * depth);
  }
  return result;
}

function canvasOf(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}

// A picture of a size, whose pixels are made from the class ids nearest to them. Not by
// a canvas: where two are as near, browsers differ.
function paint({ labels, size: [oldHeight, oldWidth] }, pixelOf, width, height) {
  const [canvas, context] = canvasOf(width, height);
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const table = classes.map((_, id) => pixelOf(id));
  const nearest = (i, from, to) => Math.floor(((i + 0.5) * from) / to);
  const columns = Array.from({ length: width }, (_, x) => nearest(x, oldWidth, width));
  for (let y = 0, i = 0; y < height; y++) {
    const row = nearest(y, oldHeight, height) * oldWidth;
    for (const column of columns) pixels[i++] = table[labels[row + column]];
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

const opaque = (red, green, blue) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;

// More pixels than some browsers' canvases hold are halved until they fit.
const MAX_PIXELS = 2 ** 24;

async function photographOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  let { height, width } = bitmap;
  while (height * width > MAX_PIXELS) [height, width] = [height >> 1, width >> 1];
  const [photograph, context] = canvasOf(width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height).data;
  const bytes = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < pixels.length; i += 4) {
    bytes[j++] = pixels[i];
    bytes[j++] = pixels[i + 1];
    bytes[j++] = pixels[i + 2];
  }
  return { photograph, image: { bytes, size: [height, width] } };
}

async function look(blob) {
  const { photograph, image } = await photographOf(blob);
  const { passes, outer } = sizesFor(...image.size);
  const { bytes, size: inner } = passes.reduce(resize, image);
  const [height, width] = outer;
  const mean = metadata.input.normalisation.mean.map(Math.round);
  const rgb = reshape(bytes, inner, outer, mean);
  const { ort, session, provider } = await network;
  const start = performance.now();
  const outputs = await session.run({
    [metadata.input.name]: new ort.Tensor("uint8", rgb, [1, height, width, 3]),
  });
  const seconds = (performance.now() - start) / 1000;
  const labels = reshape(outputs[metadata.output.name].data, outer, inner, [0]);
  result = { labels, size: inner, photograph };
  show(result);
  const engine = provider === "webgpu" ? "the graphics processor" : "WebAssembly";
  say(`Seen at ${width} × ${height} in ${seconds.toFixed(1)} s, by ${engine}.`);
}

// What a screen shows; more would only take memory.
const MAX_SIDE = 1600;

function show(result) {
  const { labels, photograph } = result;
  const factor = Math.min(1, MAX_SIDE / Math.max(photograph.width, photograph.height));
  const [width, height] = [photograph.width, photograph.height].map((side) =>
    Math.max(1, Math.round(side * factor)),
  );
  const counts = new Array(classes.length).fill(0);
  for (const id of labels) counts[id]++;
  const shown = counts
    .map((count, id) => ({ id, share: count / labels.length }))
    .filter(({ share }) => share > 0)
    .sort((a, b) => b.share - a.share);
  const opacity = document.querySelector(".segnext-slider input")?.value ?? 0.5;
  const [photo, context] = canvasOf(width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(photograph, 0, 0, width, height);
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
  const tint = paint(result, (id) => opaque(...colours[id]), width, height);
  part("tint").src = tint.toDataURL();
  part("tint").style.opacity = opacity;
  part("ids").src = paint(result, (id) => opaque(id, id, id), width, height).toDataURL();
  for (const { id, share } of shown) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.dataset.id = id;
    const colour = document.createElement("span");
    colour.style.background = `rgb(${colours[id].join(" ")})`;
    const number = document.createElement("b");
    number.textContent = share < 0.0005 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`;
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

// Both at the photograph's own size.
element("labels").addEventListener("click", () => {
  const { width, height } = result.photograph;
  save(paint(result, (id) => opaque(id, id, id), width, height), "labels.png", "image/png");
});
element("overlay").addEventListener("click", () => {
  const { width, height } = result.photograph;
  const [canvas, context] = canvasOf(width, height);
  context.drawImage(result.photograph, 0, 0);
  context.globalAlpha = Number(document.querySelector(".segnext-slider input").value);
  context.drawImage(paint(result, (id) => opaque(...colours[id]), width, height), 0, 0);
  save(canvas, "overlay.jpg", "image/jpeg");
});

// One after the other: a session takes one photograph at a time.
let last = Promise.resolve();

function take(blob) {
  if (blob) last = last.then(() => takeNext(blob));
  return last;
}

async function takeNext(blob) {
  say("Looking …");
  // Painted before the work begins, which holds the page.
  await new Promise((resolve) => setTimeout(resolve, 50));
  try {
    await look(blob);
  } catch (error) {
    // The last answer would seem to be this photograph's.
    element("result").replaceChildren();
    element("downloads").hidden = true;
    say(`This photograph could not be seen: ${error.message ?? error}`, true);
  }
}

for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    take(input.files[0]);
    // The same file may be chosen again.
    input.value = "";
  });
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
