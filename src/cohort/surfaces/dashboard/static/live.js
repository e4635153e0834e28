// Keeps a page current: fragments from the server by EventSource, relative times, and read-outs on charts.
// Every page works without it.
"use strict";
(() => {
  const body = document.body;
  const skew = Date.now() * 1000 - Number(body.dataset.nowUs); // of this clock against the server's, in microseconds
  const link = document.getElementById("link");
  let pointer = null;

  function show(state, text) {
    if (!link) return;
    link.className = "link " + state;
    link.textContent = text;
    link.hidden = false;
  }

  // --- fragments -----------------------------------------------------------------------------------------------------------

  function replace(id, html) {
    const place = document.getElementById(id);
    if (!place) return;
    if (place.hasAttribute("data-keyed")) return merge(place, html);
    const active = place.contains(document.activeElement) ? document.activeElement : null;
    const kept = active && { id: active.id, href: active.getAttribute("href") };
    place.innerHTML = html;
    if (kept) {
      const again = (kept.id && document.getElementById(kept.id)) ||
        Array.from(place.querySelectorAll("a[href]")).find((one) => one.getAttribute("href") === kept.href);
      if (again) again.focus({ preventScroll: true });
    }
    const title = place.querySelector("[data-title]");
    if (title && document.title !== title.dataset.title) {
      document.title = title.dataset.title;
      document.getElementById("announce").textContent = title.textContent;
    }
    tick();
    if (pointer && place.querySelector(".hit")) readOut(document.elementFromPoint(pointer.x, pointer.y));
  }

  // A list whose parts have keys: a part that has not changed stays as it is, with what was opened, written or proven in it.
  function merge(place, html) {
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    const still = (markup) => markup.replace(/(<time[^>]*>)[^<]*/g, "$1");
    const parts = new Map(Array.from(place.children, (part) => [part.dataset.key, part]));
    let before = null;
    for (const part of Array.from(fresh.content.children)) {
      const markup = still(part.outerHTML), old = parts.get(part.dataset.key);
      const kept = old && (sources.get(old) || markup) === markup ? old : part;
      sources.set(kept, markup);
      const next = before ? before.nextElementSibling : place.firstElementChild;
      if (kept !== next) place.insertBefore(kept, next);
      if (kept === old) parts.delete(part.dataset.key);
      before = kept;
    }
    for (const gone of parts.values()) gone.remove();
    tick();
  }

  const sources = new WeakMap();
  for (const place of document.querySelectorAll("[data-keyed]")) {
    for (const part of place.children) sources.set(part, part.outerHTML.replace(/(<time[^>]*>)[^<]*/g, "$1"));
  }

  let source = null;

  function listen(address) {
    const here = source = new EventSource(address);
    show("lost", "Connecting");
    here.addEventListener("open", () => show("live", "Live"));
    here.addEventListener("fragment", (event) => {
      const fragment = JSON.parse(event.data);
      if (paused && fragment.id === pause.dataset.holds) hold(fragment);
      else replace(fragment.id, fragment.html);
    });
    here.addEventListener("end", () => {
      here.close();
      show("ended", "Ended");
    });
    here.addEventListener("error", () => {
      if (here.readyState === EventSource.CLOSED) {
        show("lost", "Connection lost, load the page again");
        setTimeout(() => listen(address), 5000);
      } else {
        show("lost", "Connection lost, trying again");
      }
    });
  }

  // A list that moves too fast to be read stands still while its reader wants that, and then shows what is newest.

  const pause = document.getElementById("pause");
  let paused = false, held = null;

  function hold(fragment) {
    held = fragment;
    put(pause, "Go on: newer ones wait");
  }

  if (pause) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.textContent = paused ? "Go on" : "Pause";
      pause.setAttribute("aria-pressed", String(paused));
      if (!paused && held) replace(held.id, held.html);
      held = null;
    });
  }

  addEventListener("pagehide", () => source && source.close());
  addEventListener("pageshow", (event) => { if (event.persisted && body.dataset.live) listen(body.dataset.live); });

  // --- times ---------------------------------------------------------------------------------------------------------------

  const GAP = "\u00a0";

  function words(seconds, parts) {
    let left = Math.max(0, Math.round(seconds));
    const said = [];
    for (const [size, word] of [[86400, "day"], [3600, "h"], [60, "min"], [1, "s"]]) {
      const amount = Math.floor(left / size);
      left -= amount * size;
      if (amount || (size === 1 && !said.length)) said.push(amount + GAP + word + (word === "day" && amount !== 1 ? "s" : ""));
    }
    return said.slice(0, parts).join(" ");
  }

  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tick() {
    const now = Date.now() * 1000 - skew;
    for (const time of document.querySelectorAll("time[data-us]")) {
      const seconds = (now - Number(time.dataset.us)) / 1e6;
      put(time, seconds < 1 ? "just now" : words(seconds, 1) + " ago");
    }
    for (const time of document.querySelectorAll("time[data-until-us]")) put(time, words((Number(time.dataset.untilUs) - now) / 1e6, 2) + " left");
    for (const time of document.querySelectorAll("time[data-for-us]")) put(time, words((now - Number(time.dataset.forUs)) / 1e6, 2));
  }

  // --- read-outs -----------------------------------------------------------------------------------------------------------

  function readOut(target) {
    for (const out of document.querySelectorAll(".readout:not(:empty)")) out.textContent = "";
    for (const cross of document.querySelectorAll(".cross")) cross.setAttribute("visibility", "hidden");
    const hit = target && target.closest && target.closest(".hit");
    if (!hit) return;
    const title = hit.querySelector("title");
    if (title) { // the browser's own tip would say it twice
      hit.dataset.text = title.textContent;
      title.remove();
    }
    hit.closest("figure").querySelector(".readout").textContent = hit.dataset.text;
    const cross = hit.closest("svg").querySelector(".cross");
    const at = parseFloat(hit.getAttribute("x")) + parseFloat(hit.getAttribute("width")) / 2 + "%";
    cross.setAttribute("x1", at);
    cross.setAttribute("x2", at);
    cross.setAttribute("visibility", "visible");
  }

  addEventListener("pointermove", (event) => {
    const over = event.target.closest && event.target.closest(".chart");
    if (!over && !pointer) return;
    pointer = over ? { x: event.clientX, y: event.clientY } : null;
    readOut(event.target);
  });

  const here = document.querySelector("nav [aria-current]"); // on a phone the bar is wider than the screen
  if (here) here.parentElement.scrollLeft = here.offsetLeft - 16;

  setInterval(tick, 1000);
  tick();
  if (body.dataset.live) listen(body.dataset.live);
})();
