// The server's page in headless Chromium: a picture by file, by drop and from the camera; bars, overlay, keyboard, a phone's
// width, dark mode; and docs/serve.png with --screenshot.
//
//   node tools/page_test.mjs BINARY MODEL.safetensors PICTURE [--screenshot FILE.png]
//
// Needs playwright-core and Chromium: 'just page-test' gets the one and looks for the other.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [binary, model, picture, flag, screenshot] = process.argv.slice(2);
assert(picture && (!flag || (flag === "--screenshot" && screenshot)), "see the head of this file");

const server = spawn(binary, ["serve", "--model", model, "--model", `second=${model}`, "--port", "0"]);
server.stdout.resume();
const address = await new Promise((resolve, reject) => {
  createInterface({ input: server.stderr }).on("line", (line) => {
    const found = line.match(/ at (http:\S+)$/);
    if (found) resolve(found[1]);
  });
  server.on("exit", () => reject(new Error("the server did not start")));
});

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
});
const context = await browser.newContext({ viewport: { width: 1120, height: 760 }, permissions: ["camera"] });
const page = await context.newPage();
const complaints = [];
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("request", (request) => assert(request.url().startsWith(address) || /^(data|blob):/.test(request.url()), request.url()));

const pixels = () => page.$eval("#picture", (canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) sum = (31 * sum + data[i] + 3 * data[i + 1] + 7 * data[i + 2]) % 1000000007;
  return sum;
});
const answered = (count = 5) => page.waitForFunction((count) => document.querySelectorAll(".bar").length === count
  && document.getElementById("status").textContent.includes("%"), count);
const wide = () => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

try {
  await page.goto(address);
  await page.waitForSelector("#facts dd");
  assert.match(await page.textContent("#facts"), /Parameters[\d.]+ M/);
  assert.equal(await page.locator("#model option").count(), 2);

  // Every control has a name, and the keyboard reaches all of them.
  const names = [];
  for (let i = 0; i < 12; i++) {
    await page.keyboard.press("Tab");
    names.push(await page.evaluate(() => document.activeElement.id));
    if (names.at(-1) === "camera") break;
  }
  assert.deepEqual(names, ["model", "file", "camera"], "the order of the keyboard");
  assert.equal(await page.getByLabel("Model", { exact: true }).count(), 1);
  assert.equal(await page.getByLabel("Choose a picture").count(), 1);

  // A file.
  await page.setInputFiles("#file", picture);
  await answered();
  const widths = await page.$$eval(".bar i", (bars) => bars.map((bar) => parseFloat(bar.style.width)));
  assert(widths.every((width, i) => width > 0 && width <= (widths[i - 1] ?? 100)), String(widths));
  assert.match(await page.textContent("#timing"), /Decode[\d.]+ ms.*Network[\d.]+ ms/);

  // The overlay follows its slider, by keyboard.
  await page.getByLabel("Where the evidence lies").focus();
  const before = await pixels();
  await page.keyboard.press("Home");
  const plain = await pixels();
  assert.notEqual(before, plain);
  await page.keyboard.press("End");
  assert.notEqual(await pixels(), plain);
  await page.$eval("#opacity", (slider) => { slider.value = 55; slider.dispatchEvent(new Event("input")); });
  assert.equal(await pixels(), before);

  // Another class, by keyboard; the focus stays with it.
  await page.locator(".bar").nth(1).focus();
  const second = await page.locator(".bar span").nth(1).textContent();
  await page.keyboard.press("Enter");
  await page.waitForFunction((name) => document.querySelector(".bar[aria-pressed=true] span").textContent === name, second);
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-pressed")), "true");
  assert.match(await page.textContent("#shown"), new RegExp(second.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")));
  await page.locator(".bar").nth(0).click();
  await page.waitForFunction(() => document.querySelectorAll(".bar")[0].getAttribute("aria-pressed") === "true");
  assert.equal(await pixels(), before);

  if (screenshot) {
    await page.evaluate(() => document.activeElement.blur());
    await page.screenshot({ path: screenshot });
  }

  // Dark, and as wide as a phone.
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await paper();
  await page.emulateMedia({ colorScheme: "dark" });
  assert.notEqual(await paper(), light);
  if (screenshot) await page.screenshot({ path: screenshot.replace(".png", "-dark.png") });
  await page.setViewportSize({ width: 360, height: 740 });
  assert(await wide(), "it scrolls sideways on a phone");
  if (screenshot) await page.screenshot({ path: screenshot.replace(".png", "-phone.png"), fullPage: true });
  const [drop, results] = await Promise.all(["#drop", "#results"].map((id) => page.locator(id).boundingBox()));
  assert(results.y > drop.y + drop.height, "one below the other");
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1120, height: 760 });

  // Dropped, on another model.
  await page.selectOption("#model", "second");
  await answered();
  const bytes = [...readFileSync(picture)];
  await page.evaluate((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(bytes)], "dropped.jpg", { type: "image/jpeg" }));
    document.getElementById("bars").replaceChildren();
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
  }, bytes);
  await answered();
  assert.equal(await page.getAttribute("#picture", "aria-label"), "dropped.jpg");

  // Pasted.
  await page.evaluate((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(bytes)], "p.jpg", { type: "image/jpeg" }));
    document.getElementById("bars").replaceChildren();
    document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
  }, bytes);
  await answered();
  assert.equal(await page.getAttribute("#picture", "aria-label"), "The pasted picture");

  // The camera.
  await page.click("#camera");
  await page.waitForFunction(() => document.getElementById("video").videoWidth > 0);
  await page.evaluate(() => document.getElementById("bars").replaceChildren());
  await page.click("#shoot");
  await answered();
  assert(await page.isHidden("#video"));

  assert.deepEqual(complaints, []);
  // What is no picture is said so.
  await page.setInputFiles("#file", { name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("hello") });
  await page.waitForSelector("#notice:not([hidden])");
  assert.match(await page.textContent("#notice"), /JPEG, PNG/);
  console.log("the page works");
} finally {
  await browser.close();
  server.kill();
}
