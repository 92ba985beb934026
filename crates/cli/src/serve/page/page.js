"use strict";
const $ = (id) => document.getElementById(id);
const state = { models: [], image: null, blob: null, evidence: null, stream: null, asked: 0 };

// Requests -----------------------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...options.headers };
  const response = await fetch(path, { ...options, headers });
  $("access").hidden = response.status !== 401;
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error || `the server answered ${response.status}`);
  return body;
}

function complain(error) {
  $("notice").textContent = error ? error.message : "";
  $("notice").hidden = !error;
}

// Models -------------------------------------------------------------------------------------------------------------

const model = () => state.models.find((model) => model.name === $("model").value);

async function loadModels() {
  const before = $("model").value;
  state.models = (await ask("/models")).models;
  $("model").replaceChildren(...state.models.map(({ name }) => new Option(name)));
  if (state.models.some(({ name }) => name === before)) $("model").value = before;
  showFacts();
}

const mebibytes = (bytes) => `${(bytes / 1048576).toFixed(1)} MiB`;

function showFacts() {
  const m = model();
  if (!m) return;
  const [, height, width] = m.input_size;
  list($("facts"), [
    ["Architecture", m.architecture],
    ["Version", m.version],
    ["Classes", m.classes],
    ["Input", `${width} × ${height} pixels`],
    ["Parameters", m.param_count != null && `${(m.param_count / 1e6).toFixed(2)} M`],
    ["Multiply-adds", m.macs != null && `${(m.macs / 1e9).toFixed(3)} G`],
    ["File", m.file_bytes != null && mebibytes(m.file_bytes)],
    ["Memory", `${mebibytes(m.weight_bytes)} weights, ${mebibytes(m.memory_bytes)} maps`],
    ["Runs on", `${m.kernels}, ${m.dtype}, ${m.threads} ${m.threads === 1 ? "thread" : "threads"}, batches up to ${m.max_batch}`],
  ]);
}

function list(dl, rows) {
  dl.replaceChildren(...rows.filter(([, value]) => value !== false).flatMap(([name, value]) => {
    const [dt, dd] = ["dt", "dd"].map((tag) => document.createElement(tag));
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}

// The picture --------------------------------------------------------------------------------------------------------

async function take(blob, name) {
  if (!blob) return;
  closeCamera();
  complain();
  try {
    state.image = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    // The server reads formats that a browser may not; it says what is wrong with the others.
    state.image = null;
  }
  state.blob = blob;
  state.evidence = null;
  $("picture").setAttribute("aria-label", name || "The picture");
  draw();
  await classify();
}

function draw() {
  const { image, evidence } = state;
  const canvas = $("picture");
  canvas.hidden = !image;
  $("invitation").hidden = Boolean(image) || !$("video").hidden;
  $("overlay").hidden = !(image && evidence);
  if (!image) return;
  const scale = Math.min(1, 1280 / Math.max(image.width, image.height));
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (evidence) overlay(context, evidence, $("opacity").value / 100);
}

// From nothing over red to yellow: the picture stays as it is where there is no evidence.
function overlay(context, { map, crop }, opacity) {
  const small = new OffscreenCanvas(map[0].length, map.length);
  const pixels = map.flat().flatMap((v) => [225 + 30 * v, 40 + 190 * v * v, 45 - 20 * v, 255 * Math.sqrt(v)]);
  small.getContext("2d").putImageData(new ImageData(Uint8ClampedArray.from(pixels), small.width, small.height), 0, 0);
  const { width, height } = context.canvas;
  const [left, top, wide, high] = [crop[0] * width, crop[1] * height, crop[2] * width, crop[3] * height];
  context.save();
  context.beginPath();
  context.rect(left, top, wide, high);
  context.clip();
  context.globalAlpha = opacity;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, left, top, wide, high);
  context.restore();
  context.strokeStyle = "rgba(255, 255, 255, .65)";
  context.setLineDash([5, 4]);
  context.strokeRect(left + .5, top + .5, wide - 1, high - 1);
}

// Answers ------------------------------------------------------------------------------------------------------------

async function classify(chosen) {
  const m = model();
  if (!m || !state.blob) return;
  const asked = ++state.asked;
  $("status").textContent = "Asking the network …";
  try {
    const path = `/${m.class_maps ? "explain" : "predictions"}/${encodeURIComponent(m.name)}?topk=5`;
    const answer = await ask(chosen == null ? path : `${path}&class=${chosen}`, {
      method: "POST",
      body: state.blob,
      headers: { "content-type": state.blob.type || "application/octet-stream" },
    });
    // An answer to an older question would be shown beside the wrong picture.
    if (asked !== state.asked) return;
    complain();
    show(answer);
  } catch (error) {
    if (asked !== state.asked) return;
    $("status").textContent = "No answer.";
    $("bars").replaceChildren();
    $("timing").hidden = true;
    complain(error);
  }
}

function show(answer) {
  const percent = (share) => `${(100 * share).toFixed(share < .0995 ? 2 : 1)} %`;
  const [first] = answer.predictions;
  state.evidence = answer.explanation || null;
  $("status").textContent = `${first.name}, ${percent(first.probability)}`;
  $("bars").replaceChildren(...answer.predictions.map((prediction) => {
    const item = document.createElement("li");
    const bar = document.createElement("button");
    bar.className = "bar";
    bar.type = "button";
    const [fill, name, value] = ["i", "span", "b"].map((tag) => document.createElement(tag));
    fill.style.width = `${100 * prediction.probability}%`;
    name.textContent = prediction.name;
    value.textContent = percent(prediction.probability);
    bar.append(fill, name, value);
    bar.disabled = !state.evidence;
    if (state.evidence) {
      bar.title = "Show where the evidence for this class lies";
      bar.setAttribute("aria-pressed", prediction.class === state.evidence.class);
      bar.addEventListener("click", async () => {
        await classify(prediction.class);
        document.querySelector(".bar[aria-pressed=true]")?.focus();
      });
    }
    item.append(bar);
    return item;
  }));
  $("shown").textContent = state.evidence ? ` for ${state.evidence.name}` : "";
  const ms = (value) => `${value.toFixed(1)} ms`;
  const { decode_ms, queue_ms, inference_ms, total_ms } = answer.timing;
  const rows = [["Decode", decode_ms], ["Queue", queue_ms], ["Network", inference_ms], ["Total", total_ms]];
  $("timing").replaceChildren(...rows.map(([name, value]) => {
    const cell = document.createElement("div");
    list(cell, [[name, ms(value)]]);
    return cell;
  }));
  $("timing").hidden = false;
  draw();
}

// Camera -------------------------------------------------------------------------------------------------------------

async function openCamera() {
  if (state.stream) return closeCamera();
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return complain(new Error(`The camera cannot be used: ${error.message}`));
  }
  const video = $("video");
  video.srcObject = state.stream;
  state.image = null;
  video.hidden = false;
  draw();
  $("shoot").hidden = false;
  $("camera").textContent = "Close the camera";
  await video.play();
  $("shoot").focus();
}

function closeCamera() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  $("video").srcObject = null;
  $("video").hidden = true;
  $("shoot").hidden = true;
  $("camera").textContent = "Camera";
  draw();
}

function shoot() {
  const video = $("video");
  const frame = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  frame.getContext("2d").drawImage(video, 0, 0);
  frame.convertToBlob({ type: "image/jpeg", quality: .92 }).then((blob) => take(blob, "The camera's picture"));
}

// Events -------------------------------------------------------------------------------------------------------------

$("file").addEventListener("change", ({ target }) => take(target.files[0], target.files[0]?.name));
$("model").addEventListener("change", () => { showFacts(); state.evidence = null; draw(); classify(); });
$("opacity").addEventListener("input", draw);
$("camera").addEventListener("click", openCamera);
$("camera").hidden = !navigator.mediaDevices?.getUserMedia;
$("shoot").addEventListener("click", shoot);
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  loadModels().then(() => { complain(); classify(); }).catch(complain);
});
for (const [type, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", over);
    if (type === "drop") take([...event.dataTransfer.files][0], event.dataTransfer.files[0]?.name);
  });
}
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) take(file, "The pasted picture");
});
loadModels().catch(complain);
