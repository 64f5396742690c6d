// While a sweep runs: the page asks its server what is new, and shows it without being loaded again.
"use strict";
(() => {
  const EVERY_MS = 2000;
  let version = null;

  Page.ask = async (a, b) => {
    const answer = await fetch(`pair?a=${Page.data.idOf(a)}&b=${Page.data.idOf(b)}`);
    if (!answer.ok) throw new Error(await answer.text());
    const found = await Page.unpack(new Uint8Array(await answer.arrayBuffer()));
    return Page.turned(found.pairs, a, b);
  };

  Page.live = async (replaced) => {
    for (;;) {
      try {
        const state = await (await fetch("state")).json();
        progress(state);
        if (!state.cells) Page.fill(document.getElementById("view-overview"), Page.el("p", {}, "No cell has ended yet: this page fills by itself."));
        else if (state.version !== version) {
          const answer = await fetch("data");
          if (answer.ok) {
            version = state.version;
            await replaced(new Uint8Array(await answer.arrayBuffer()));
          }
        }
      } catch (error) {
        progress({ lost: true });
      }
      await new Promise((done) => setTimeout(done, EVERY_MS));
    }
  };

  function progress(state) {
    const box = document.getElementById("progress");
    box.hidden = false;
    if (state.lost) return Page.fill(box, "The server has ended: this is what it showed last.");
    const sweep = state.progress;
    if (!sweep) return Page.fill(box, `${state.cells} cells recorded; no sweep is running here.`);
    const bar = Page.el("progress", { max: sweep.total, value: sweep.done, "aria-label": "Cells done" });
    Page.fill(box, bar, ` ${sweep.done} of ${sweep.total} cells`, sweep.left ? `, about ${sweep.left} left` : "", sweep.now ? Page.el("bdi", {}, ` · ${sweep.now}`) : "");
  }
})();
