// What a person tries on the page, in a window of a desk's and of a phone's size; told to
// the server.
const told = {};

async function until(condition) {
  const start = Date.now();
  while (!condition()) {
    if (Date.now() > start + 30000) throw new Error(`still not ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function visit([name, width, height]) {
  const frame = Object.assign(document.createElement("iframe"), { src: "/", width, height });
  document.body.append(frame);
  await until(() => frame.contentDocument?.getElementById("status"));
  const view = frame.contentWindow;
  const page = view.document;
  const element = (id) => page.getElementById(id);
  const status = () => element("status").textContent;
  const saved = {};
  const blobs = [];
  view.URL.createObjectURL = (blob) => `blob:${blobs.push(blob) - 1}`;
  view.HTMLAnchorElement.prototype.click = function () {
    const reader = new FileReader();
    reader.onload = () => (saved[this.download] = reader.result.split(",")[1]);
    reader.readAsDataURL(blobs[Number(this.href.split(":")[1])]);
  };
  await until(() => /seen in/.test(status()));
  const [first, second] = page.querySelectorAll(".stage");
  const boxes = [first, second].map((stage) => stage.getBoundingClientRect());
  const legend = [...element("legend").querySelectorAll("button")];
  const point = (type, stage, u, v) => {
    const box = stage.getBoundingClientRect();
    const [clientX, clientY] = [box.left + u * box.width, box.top + v * box.height];
    stage.dispatchEvent(new view.PointerEvent(type, { bubbles: true, clientX, clientY }));
    return stage.querySelector(".name").textContent;
  };
  const seen = (id) => {
    const canvas = element(id);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3]);
  };
  const report = (told[name] = {
    title: page.title,
    beside: boxes[0].right <= boxes[1].left,
    below: boxes[0].bottom <= boxes[1].top,
    overflow: page.documentElement.scrollWidth - view.innerWidth,
    legend: legend.map((button) => button.textContent),
    buttons: legend.map((button) => button.getBoundingClientRect().height),
    name: point("pointermove", first, 0.25, 0.5),
    tapped: point("pointerdown", second, 0.25, 0.5),
  });
  point("pointermove", page.body, 0, 0);
  report.left = page.querySelectorAll(".stage .name:not(:empty)").length;
  element("opacity").value = 0.2;
  element("opacity").dispatchEvent(new view.Event("input"));
  report.opacity = view.getComputedStyle(element("tint")).opacity;
  legend[0].click();
  report.chosen = { tint: seen("tint"), veil: seen("veil") };
  legend[0].click();
  report.released = Math.max(...seen("veil"));
  element("labels").click();
  element("overlay").click();
  await until(() => Object.keys(saved).length === 2);
  report.saved = saved;

  const transfer = new view.DataTransfer();
  transfer.items.add(new view.File(["no photograph"], "<b>.png"));
  const drop = new view.DragEvent("drop", { dataTransfer: transfer });
  view.dispatchEvent(drop);
  await until(() => /cannot be decoded/.test(status()));
  report.fault = status();
  report.markup = element("status").children.length;
  report.isOldGone = element("result").hidden;
  const large = new view.DataTransfer();
  large.items.add(new view.File([new Uint8Array(1200000)], "large.png"));
  view.dispatchEvent(new view.DragEvent("drop", { dataTransfer: large }));
  await until(() => /at most/.test(status()));
  report.limit = status();
}

try {
  await visit(["desk", 1440, 900]);
  await visit(["phone", 390, 844]);
} catch (error) {
  told.fault = String(error.stack ?? error);
}
await fetch("told", { method: "POST", body: JSON.stringify(told) });
