// Everything listens on the document: results come and go, and their own scripts would
// not run.
(() => {
  const idsOf = new WeakMap();

  // One id for each pixel, from the hidden PNG.
  function ids(page) {
    const image = page.querySelector(".segnext-ids");
    if (!image.complete || !image.naturalWidth) return null;
    if (!idsOf.has(image)) {
      const canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      idsOf.set(image, context.getImageData(0, 0, canvas.width, canvas.height));
    }
    return idsOf.get(image);
  }

  // The pixel beneath the pointer; the image may be letterboxed in its stage.
  function pixelAt(stage, data, event) {
    const box = stage.getBoundingClientRect();
    const scale = Math.min(box.width / data.width, box.height / data.height);
    const x = (event.clientX - box.left - (box.width - data.width * scale) / 2) / scale;
    const y = (event.clientY - box.top - (box.height - data.height * scale) / 2) / scale;
    if (x < 0 || y < 0 || x >= data.width || y >= data.height) return -1;
    return Math.floor(y) * data.width + Math.floor(x);
  }

  function showName(event) {
    const stage = event.target.closest?.(".segnext-stage");
    for (const other of document.querySelectorAll(".segnext-name")) {
      if (!stage || !stage.contains(other)) other.textContent = "";
    }
    if (!stage) return;
    const page = stage.closest(".segnext");
    const name = stage.querySelector(".segnext-name");
    const data = ids(page);
    const pixel = data ? pixelAt(stage, data, event) : -1;
    const classes = JSON.parse(page.dataset.classes);
    name.textContent = pixel < 0 ? "" : classes[data.data[4 * pixel]];
    const box = stage.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    name.style.left = `${Math.min(x + 14, box.width - name.offsetWidth)}px`;
    name.style.top = `${Math.max(0, y - 40)}px`;
  }

  // Show where a class is: all else is darkened.
  function mark(event) {
    const button = event.target.closest?.(".segnext-legend button");
    if (!button) return;
    const page = button.closest(".segnext");
    const data = ids(page);
    if (!data) return;
    const context = page.querySelector(".segnext-mark").getContext("2d");
    const shade = context.createImageData(data.width, data.height);
    const id = Number(button.dataset.id);
    for (let i = 0; i < data.data.length; i += 4) {
      if (data.data[i] !== id) shade.data[i + 3] = 170;
    }
    context.putImageData(shade, 0, 0);
  }

  function unmark(event) {
    const button = event.target.closest?.(".segnext-legend button");
    if (!button) return;
    const canvas = button.closest(".segnext").querySelector(".segnext-mark");
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }

  document.addEventListener("input", (event) => {
    const slider = event.target.closest?.(".segnext-slider input");
    if (!slider) return;
    slider.closest(".segnext").querySelector(".segnext-tint").style.opacity = slider.value;
  });
  document.addEventListener("pointermove", showName);
  document.addEventListener("pointerdown", showName); // A finger does not hover.
  document.addEventListener("pointerover", mark);
  document.addEventListener("pointerout", unmark);
  document.addEventListener("focusin", mark);
  document.addEventListener("focusout", unmark);
})();
