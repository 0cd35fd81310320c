// What `master dev` says to the pages of a game: an error over the page until it is mended, and "reload" when the page has changed.
// A node gives this to pages only while it runs under `master dev`.
"use strict";
(() => {
  if (customElements.get("ff-dev")) return;
  const LOOK_EVERY_MS = 400;
  const style = new CSSStyleSheet();
  style.replaceSync(`
    section { position: fixed; inset: 1rem 1rem auto; z-index: 2147483647; max-height: calc(100dvh - 2rem); display: flex;
              flex-direction: column; box-sizing: border-box; overflow: hidden; border-radius: .5rem; border-top: .3rem solid #e5484d;
              background: #16181d; color: #e7e9ee; font: 14px/1.5 system-ui, sans-serif; box-shadow: 0 .5rem 3rem #000a; }
    header { display: flex; gap: 1rem; align-items: baseline; padding: .8rem 1rem; }
    h2 { margin: 0; font-size: 1rem; color: #ff8589; flex: 1; }
    pre { margin: 0; padding: 0 1rem; overflow: auto; font: 13px/1.45 ui-monospace, monospace; tab-size: 4; }
    p { margin: 0; padding: .8rem 1rem; color: #a2a9b8; }
    button { font: inherit; color: inherit; background: none; border: 1px solid #4a5160; border-radius: .3rem; padding: .1rem .6rem;
             cursor: pointer; }
    aside { position: fixed; right: .8rem; bottom: .8rem; z-index: 2147483647; padding: .2rem .7rem; border-radius: 1rem;
            background: #16181d; color: #e7e9ee; font: 13px/1.5 system-ui, sans-serif; }
    [hidden] { display: none; }`);

  customElements.define("ff-dev", class extends HTMLElement {});
  const host = document.createElement("ff-dev");
  const root = host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [style];
  const add = (parent, name) => parent.appendChild(document.createElement(name));
  const box = add(root, "section"), head = add(box, "header"), title = add(head, "h2"), close = add(head, "button");
  const text = add(box, "pre"), note = add(box, "p"), doing = add(root, "aside");
  box.setAttribute("role", "alert");
  doing.setAttribute("role", "status");
  close.textContent = "Dismiss";
  box.hidden = doing.hidden = true;

  // The page as it was when it was opened, the error that is shown, and the one that nobody wants to see any more.
  let page, shown, dismissed;
  const dismiss = () => { dismissed = shown; box.hidden = true; };
  close.addEventListener("click", dismiss);
  addEventListener("keydown", (event) => { if (event.key === "Escape" && !box.hidden) dismiss(); });

  function show(notice) {
    page ??= notice.page;
    if (page !== notice.page) return location.reload();
    shown = notice.title && JSON.stringify([notice.title, notice.text]);
    if (!shown) dismissed = undefined;
    // Text, never HTML: it has lines of the game's sources.
    title.textContent = notice.title;
    text.textContent = notice.text;
    note.textContent = notice.note;
    box.hidden = !shown || shown === dismissed;
    doing.textContent = notice.doing;
    doing.hidden = !notice.doing;
    if (!host.isConnected) document.documentElement.append(host);
  }

  async function look() {
    try {
      const answer = await fetch("/ff-dev/notice", { cache: "no-store" });
      if (answer.ok) show(await answer.json());
    } catch {
      // The node is not there for a moment.
    }
    setTimeout(look, LOOK_EVERY_MS);
  }
  look();
})();
