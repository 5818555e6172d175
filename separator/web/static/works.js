// <work-token page="separate" token="...">: keeps the token of a page's work in the address and
// in the tab's storage, so that reloading, or coming back, finds it again.

class WorkToken extends HTMLElement {
  connectedCallback() {
    const [page, token] = [this.getAttribute("page"), this.getAttribute("token")];
    const kept = new URLSearchParams(location.hash.slice(1));
    kept.set(page, token);
    history.replaceState(history.state, "", `#${kept}`);
    sessionStorage.setItem(`separator-${page}`, token);
  }
}

if (!customElements.get("work-token")) customElements.define("work-token", WorkToken);

// Work under way: a job's progress, a batch with songs to come, or an upload.
const BUSY = ".sep-status, .sep-table :is(.running, .waiting), .gradio-container .upload-progress";
// The page loads itself again after a drop of the network; that needs no question. Leaving ends the
// connection, too, before this hears of it: what counts is what was seen a moment ago.
let lost = false;
setInterval(() => {
  lost = [...document.querySelectorAll(".toast-body")].some((each) =>
    each.textContent.includes("Connection to the server was lost"),
  );
}, 500);

addEventListener("beforeunload", (event) => {
  if (document.querySelector(BUSY) && !lost) event.preventDefault();
});
