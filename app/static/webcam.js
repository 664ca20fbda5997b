/** The webcam: a live result a few times per second; it stops when the page is hidden. */

import { address, upload } from "./api.js";
import { byId, h } from "./dom.js";
import { sentence, verdict } from "./verdict.js";

const PAUSE_MILLISECONDS = 200;
const EDGE = 480;
let stream = null;
let openings = 0;

/** `use` gets a file of the picture that is taken, `report` a sentence on what is wrong. */
export function start(use, report) {
  byId("webcam-start").hidden = !navigator.mediaDevices;
  byId("webcam-start").addEventListener("click", () => open().catch(() => {
    stop();
    report("The webcam cannot be used: allow it in the browser, or choose a file.");
  }));
  byId("webcam-stop").addEventListener("click", stop);
  byId("webcam-take").addEventListener("click", async () => { const file = await frame(); stop(); use(file); });
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); });
}

async function open() {
  stop();
  const mine = ++openings;
  const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  if (mine !== openings) return end(opened);  /* stopped, or opened again, while the browser asked for permission */
  stream = opened;
  byId("webcam-result").textContent = "";
  byId("webcam-video").srcObject = stream;
  byId("webcam").hidden = false;
  await byId("webcam-video").play();
  byId("webcam-take").focus();
  watch(stream);
}

export function stop() {
  openings += 1;
  if (stream) end(stream);
  stream = null;
  if (byId("webcam").contains(document.activeElement)) byId("webcam-start").focus();
  byId("webcam").hidden = true;
  byId("webcam-video").srcObject = null;
}

function end(some) {
  for (const track of some.getTracks()) track.stop();
}

/** Classify one frame after the other while this stream is the open one. */
async function watch(mine) {
  while (stream === mine) {
    const text = await classifyFrame().catch((error) => error.message);
    if (stream === mine) byId("webcam-result").textContent = text;
    await new Promise((resolve) => { setTimeout(resolve, PAUSE_MILLISECONDS); });
  }
}

async function classifyFrame() {
  const response = await upload(address("predict"), await frame());
  return sentence(verdict(await response.json()));
}

/** The picture that the webcam sees now, as a file. */
async function frame() {
  const { videoWidth: width, videoHeight: height } = byId("webcam-video");
  const scale = Math.min(1, EDGE / Math.max(width, height));
  const canvas = h("canvas", { width: scale * width, height: scale * height });
  canvas.getContext("2d").drawImage(byId("webcam-video"), 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.9); });
  return new File([blob], "webcam.jpg", { type: "image/jpeg" });
}
