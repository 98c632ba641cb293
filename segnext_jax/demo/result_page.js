// The page of `segnext-jax demo` and of `segnext-jax export --format=web`: a photograph, its
// classes beside it. Who looks at the photograph, this page's server or onnxruntime in the
// browser (web_page.js), metadata.json says.
const element = (id) => document.getElementById(id);
const metadata = await (await fetch("metadata.json")).json();
const { classes, colours, network } = metadata;
const MAX_SHOWN_PX = 2048;
const stages = [...document.querySelectorAll(".stage")];
// What is shown: { photograph, name, labels, width, height, certainty }; and which classes
// of it, where the legend has been clicked.
let result = null;
let chosen = new Set();

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const through = (bytes, stream) =>
  new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer();
const inflated = async (text) =>
  new Uint8Array(await through(bytesOf(text), new DecompressionStream("deflate")));

// The server's answer to a photograph. A page that another server shows has no such server.
async function askServer(file) {
  if (file.size > metadata.max_upload_mb * 1e6) {
    throw new Error(
      `a photograph must have at most ${metadata.max_upload_mb} MB ` +
        `(--max_upload_mb): got ${(file.size / 1e6).toFixed(1)} MB.`,
    );
  }
  const start = performance.now();
  const tick = setInterval(() => {
    const seconds = Math.round((performance.now() - start) / 1000);
    say(`Looking … ${seconds} s. The first photograph of a size takes longer.`);
  }, 1000);
  try {
    const address = `look?name=${encodeURIComponent(file.name ?? "photograph")}`;
    const response = await fetch(address, { method: "POST", body: file });
    if (!response.ok) throw new Error(await response.text());
    const { photograph, labels, certainty, width, height, seconds } = await response.json();
    const image = new Image();
    image.src = `data:image/jpeg;base64,${photograph}`;
    await image.decode();
    certainty.values = await inflated(certainty.values);
    const note = `${width} × ${height}, seen in ${seconds.toFixed(1)} s.`;
    return { photograph: image, labels: await inflated(labels), width, height, certainty, note };
  } catch (error) {
    if (error instanceof TypeError) throw new Error("the server does not answer: is it running?");
    throw error;
  } finally {
    clearInterval(tick);
  }
}

function canvasOf(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  return [canvas, canvas.getContext("2d")];
}

// Make a canvas's pixels from class ids; 0 is transparent.
function paint(canvas, pixelOf) {
  const { labels, width, height } = result;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const table = classes.map((_, id) => pixelOf(id));
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[labels[i]];
  context.putImageData(image, 0, 0);
}

const isShown = (id) => !chosen.size || chosen.has(id);

function paintClasses() {
  paint(element("tint"), (id) => {
    const [red, green, blue] = colours[id];
    return isShown(id) ? (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0 : 0;
  });
  paint(element("veil"), (id) => (isShown(id) ? 0 : 0xb0000000));
  element("legend").classList.toggle("filtered", chosen.size > 0);
  for (const button of element("legend").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", chosen.has(Number(button.dataset.id)));
  }
}

function show() {
  const { photograph, labels } = result;
  const { width, height } = sizeOf(photograph);
  const factor = Math.min(1, MAX_SHOWN_PX / Math.max(width, height));
  for (const stage of stages) {
    stage.style.setProperty("--ratio", width / height);
    const canvas = stage.querySelector(".photo");
    canvas.width = Math.max(1, Math.round(width * factor));
    canvas.height = Math.max(1, Math.round(height * factor));
    canvas.getContext("2d").drawImage(photograph, 0, 0, canvas.width, canvas.height);
  }
  const counts = new Array(classes.length).fill(0);
  for (const id of labels) counts[id]++;
  const present = counts
    .map((count, id) => ({ id, share: count / labels.length }))
    .filter(({ share }) => share > 0)
    .sort((a, b) => b.share - a.share);
  element("legend").replaceChildren(...present.map(({ id, share }) => legendItem(id, share)));
  chosen = new Set();
  paintClasses();
  showName(null);
  element("result").hidden = false;
}

function sizeOf(photograph) {
  const { naturalWidth, naturalHeight, width, height } = photograph;
  return { width: naturalWidth || width, height: naturalHeight || height };
}

function legendItem(id, share) {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.dataset.id = id;
  button.title = "show this class alone, and others that are clicked";
  const colour = document.createElement("span");
  colour.style.background = `rgb(${colours[id].join(" ")})`;
  const number = document.createElement("b");
  number.textContent = share < 0.0005 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`;
  button.append(colour, `${classes[id]} `, number);
  const item = document.createElement("li");
  item.append(button);
  return item;
}

element("legend").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const id = Number(button.dataset.id);
  if (!chosen.delete(id)) chosen.add(id);
  paintClasses();
});

// Class and probability beneath the pointer, and the same place in the other picture.
function showName(event) {
  const stage = event?.target.closest?.(".stage");
  for (const one of stages) {
    one.querySelector(".name").textContent = "";
    one.querySelector(".spot").hidden = true;
  }
  if (!stage || !result) return;
  const box = stage.getBoundingClientRect();
  const [u, v] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  const at = ({ width, height }) =>
    Math.min(height - 1, Math.max(0, Math.floor(v * height))) * width +
    Math.min(width - 1, Math.max(0, Math.floor(u * width)));
  const { labels, certainty } = result;
  const share = Math.round(certainty.values[at(certainty)] / 2.55);
  const name = stage.querySelector(".name");
  name.textContent = `${classes[labels[at(result)]]} ${share}%`;
  const left = Math.min(u * box.width + 14, box.width - name.offsetWidth);
  name.style.left = `${Math.max(0, left)}px`;
  name.style.top = `${Math.max(0, v * box.height - 40)}px`;
  const spot = stages.find((one) => one !== stage).querySelector(".spot");
  spot.style.left = `${100 * u}%`;
  spot.style.top = `${100 * v}%`;
  spot.hidden = false;
}
document.addEventListener("pointermove", showName);
document.addEventListener("pointerdown", showName); // A finger does not hover.

element("opacity").addEventListener("input", (event) => {
  element("tint").style.opacity = event.target.value;
});
element("tint").style.opacity = element("opacity").value;

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${result.name}_${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A PNG of ids with the palette of the classes, at the photograph's size, as `segnext-jax
// predict` writes it. Canvases would give four bytes a pixel, in some browsers not exactly.
async function labelPng() {
  const { labels, width, height, photograph } = result;
  const size = sizeOf(photograph);
  const rows = new Uint8Array((size.width + 1) * size.height);
  const nearest = (place, from, to) => Math.floor(((place + 0.5) * from) / to);
  const columns = Array.from({ length: size.width }, (_, x) => nearest(x, width, size.width));
  for (let y = 0, i = 0; y < size.height; y++) {
    const row = nearest(y, height, size.height) * width;
    i++; // Rows begin with the number of their filter: 0, none.
    for (let x = 0; x < size.width; x++) rows[i++] = labels[row + columns[x]];
  }
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, size.width);
  header.setUint32(4, size.height);
  header.setUint16(8, 0x0803); // Eight bits, a palette.
  const palette = new Uint8Array(768);
  palette.set(colours.flat());
  return new Blob(
    [
      new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
      pngChunk("IHDR", new Uint8Array(header.buffer)),
      pngChunk("PLTE", palette),
      pngChunk("IDAT", new Uint8Array(await through(rows, new CompressionStream("deflate")))),
      pngChunk("IEND", new Uint8Array()),
    ],
    { type: "image/png" },
  );
}

function pngChunk(name, data) {
  const chunk = new Uint8Array(data.length + 12);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  chunk.set(new TextEncoder().encode(name), 4);
  chunk.set(data, 8);
  let sum = -1;
  for (const byte of chunk.subarray(4, -4)) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (0xedb88320 & -(sum & 1));
  }
  view.setUint32(data.length + 8, ~sum);
  return chunk;
}

element("labels").addEventListener("click", async () => save(await labelPng(), "labels.png"));
element("overlay").addEventListener("click", () => {
  const { width, height } = sizeOf(result.photograph);
  const [canvas, context] = canvasOf(width, height);
  context.drawImage(result.photograph, 0, 0);
  context.globalAlpha = Number(element("opacity").value);
  context.imageSmoothingEnabled = false;
  context.drawImage(element("tint"), 0, 0, width, height);
  canvas.toBlob((blob) => save(blob, "overlay.jpg"), "image/jpeg", 0.92);
});

// One after the other; of those that wait, the newest.
let last = Promise.resolve();
let newest = 0;

function take(file) {
  if (!file) return last;
  const number = ++newest;
  last = last.then(() => number === newest && takeNext(file));
  return last;
}

async function takeNext(file) {
  say("Looking …");
  // Painted before the work begins, which may hold the page.
  await new Promise((resolve) => setTimeout(resolve, 50));
  try {
    const seen = await (await look)(file);
    result = { ...seen, name: (file.name ?? "photograph").replace(/\.\w+$/, "") };
    show();
    say(seen.note);
  } catch (error) {
    // The last answer would seem to be this photograph's.
    result = null;
    element("result").hidden = true;
    say(error.message ?? String(error), true);
  }
}

async function takeFrom(address) {
  const blob = await (await fetch(address)).blob();
  await take(new File([blob], address.split("/").pop(), { type: blob.type }));
}

for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    take(input.files[0]);
    input.value = ""; // So that the same file may be chosen again.
  });
}
addEventListener("paste", (event) => take(event.clipboardData.files[0]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("choices").classList.add("over");
});
addEventListener("dragleave", () => element("choices").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  element("choices").classList.remove("over");
  take(event.dataTransfer.files[0]);
});

for (const address of metadata.examples ?? []) {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const name = decodeURIComponent(address.split("/").pop());
  button.append(Object.assign(new Image(), { src: address, alt: name, title: name }));
  button.addEventListener("click", () => takeFrom(address));
  element("examples").append(button);
  element("examples").hidden = false;
}

const facts = [`${classes.length} classes`];
if (network.step != null) facts.unshift(`step ${network.step.toLocaleString("en")}`);
if (network.mIoU != null) facts.unshift(`mIoU ${(100 * network.mIoU).toFixed(2)}`);
const title = `${network.name} ${network.variant}, ${metadata.dataset}`;
document.title = [title, ...facts].join(", ");
element("title").textContent = title;
element("about").textContent = facts.join(", ");
let look = askServer;
if (metadata.files?.onnx) {
  element("about").textContent += ". The network runs on this device: no photograph leaves it.";
  look = import("./web_page.js").then((page) => page.open(metadata));
}
try {
  await look;
  say("Ready.");
  // A link to a photograph: index.html?image=street.jpg
  const asked = new URLSearchParams(location.search).get("image");
  const address = asked ?? metadata.examples?.[0];
  if (address) await takeFrom(address);
} catch (error) {
  say(`The network could not be loaded: ${error.message ?? error}`, true);
}
