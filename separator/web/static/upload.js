// Files that don't come through the upload's own button: recorded, or dropped anywhere.

// Put files where an upload takes its files, in place of those that are there; tell whether it
// could be done.
export async function hand(upload, files) {
  const full = () => upload.querySelector("button[aria-label=Clear]");
  const input = () => upload.querySelector("input[type=file]");
  full()?.click();
  for (let frame = 0; frame < 120 && (full() || !input()); frame += 1) {
    await new Promise((done) => requestAnimationFrame(done));
  }
  if (full() || !input()) return false;
  const transfer = new DataTransfer();
  for (const file of input().multiple ? files : files.slice(0, 1)) transfer.items.add(file);
  input().files = transfer.files;
  input().dispatchEvent(new Event("change", { bubbles: true }));
  return true;
}
