// The whole page takes drops: they go to the upload of the tab that is seen.

import { hand } from "./upload.js";

const UPLOADS = "#song, #batch-songs, #compare-song, #zoo-files";
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
const isSeen = (each) => each.offsetParent !== null;

// Uploads that are no song's (references, a model's files) take what is dropped right on them.
function targetOf(event) {
  const under = event.composedPath().find((each) => each.matches?.("#compare-references, " + UPLOADS));
  return under || [...document.querySelectorAll(UPLOADS)].find(isSeen);
}

addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  document.body.classList.toggle("sep-dropping", Boolean(targetOf(event)));
}, true);

for (const end of ["dragleave", "drop", "dragend"]) {
  addEventListener(end, (event) => {
    if (end === "dragleave" && event.relatedTarget) return;
    document.body.classList.remove("sep-dropping");
  }, true);
}

addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault(); // else the browser opens the file, and the page is gone
  event.stopPropagation();
  const target = targetOf(event);
  const files = [...event.dataTransfer.files];
  if (target && files.length) hand(target, files);
}, true);
