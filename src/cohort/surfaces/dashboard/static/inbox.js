// Says with an answer how long its question was on the screen. Answering works without it.
"use strict";
(() => {
  const seen = new WeakMap(); // question -> milliseconds on the screen so far, and since when it is there again
  const now = () => performance.now();

  function pause(state) {
    if (state.since !== null) state.total += now() - state.since;
    state.since = null;
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const state = seen.get(entry.target);
      state.inView = entry.isIntersecting;
      if (!entry.isIntersecting) pause(state);
      else if (state.since === null && !document.hidden) state.since = now();
    }
  }, { threshold: 0.25 });

  function watch() {
    for (const question of document.querySelectorAll(".question")) {
      if (seen.has(question)) continue;
      seen.set(question, { total: 0, since: null, inView: false });
      watcher.observe(question);
    }
  }

  document.addEventListener("visibilitychange", () => {
    for (const question of document.querySelectorAll(".question")) {
      const state = seen.get(question);
      if (!state) continue;
      if (document.hidden) pause(state);
      else if (state.inView && state.since === null) state.since = now();
    }
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.closest(".question");
    const place = event.target.querySelector(".looked");
    const state = question && seen.get(question);
    if (!place || !state) return;
    pause(state);
    place.value = String(Math.round(state.total));
  });

  new MutationObserver(watch).observe(document.getElementById("main"), { childList: true, subtree: true });
  watch();
})();
