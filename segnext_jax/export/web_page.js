// Looks at photographs by onnxruntime-web, in the browser, for result_page.js.

// Return a function of a file that returns what result_page.js shows.
export async function open(metadata) {
  const look = await openNetwork(metadata);
  return (file) =>
    look(file).catch((error) => {
      throw new Error(`This photograph could not be seen: ${error.message ?? error}`);
    });
}

async function openNetwork(metadata) {
  const { ort, session, provider } = await openSession(metadata);
  const engine = provider === "webgpu" ? "the graphics processor" : "WebAssembly";
  const mean = metadata.input.normalisation.mean.map(Math.round);
  return async (file) => {
    const { photograph, image } = await photographOf(file);
    const { passes, outer } = sizesFor(metadata, ...image.size);
    const { bytes, size: inner } = passes.reduce(resize, image);
    const [height, width] = outer;
    const rgb = reshape(bytes, inner, outer, mean);
    const start = performance.now();
    const outputs = await session.run({
      [metadata.input.name]: new ort.Tensor("uint8", rgb, [1, height, width, 3]),
    });
    const seconds = (performance.now() - start) / 1000;
    const labels = reshape(outputs[metadata.output.name].data, outer, inner, [0]);
    const certainty = certaintyOf(outputs.certainty, inner);
    const note = `Seen at ${width} × ${height} in ${seconds.toFixed(1)} s, by ${engine}.`;
    return { photograph, labels, width: inner[1], height: inner[0], certainty, note };
  };
}

async function openSession(metadata) {
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
function sizesFor(metadata, height, width) {
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

// Probabilities of the best class as bytes, at 1/8 of the network's input.
function certaintyOf({ data, dims: [, height, width] }, inner) {
  const [newHeight, newWidth] = inner.map((side) => Math.ceil(side / 8));
  const bytes = Uint8Array.from(data, (share) => Math.round(255 * share));
  const values = reshape(bytes, [height, width], [newHeight, newWidth], [0]);
  return { values, width: newWidth, height: newHeight };
}

// More pixels than some browsers' canvases hold are halved until they fit.
const MAX_PIXELS = 2 ** 24;

async function photographOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  let { height, width } = bitmap;
  while (height * width > MAX_PIXELS) [height, width] = [height >> 1, width >> 1];
  const photograph = Object.assign(document.createElement("canvas"), { width, height });
  const context = photograph.getContext("2d", { willReadFrequently: true });
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
