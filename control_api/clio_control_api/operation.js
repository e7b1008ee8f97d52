// Keeps the page of an operation up to date by server-sent events. Whatever changes more than a line of a
// node, and whatever goes wrong, loads the page anew: the server draws it.
"use strict";
(() => {
  const list = document.getElementById("nodes");
  const reload = () => location.reload();
  const show = (event) => {
    const run = JSON.parse(event.data);
    if (run.state !== list.dataset.state) return reload();
    for (const node of run.nodes) {
      const line = list.querySelector(`[data-node="${Number(node.node_id)}"]`);
      if (!line) return reload();
      const step = line.querySelector(".step");
      step.textContent = node.state;
      step.className = `step ${node.state}`;
      line.querySelector(".message").textContent = node.message;
    }
    document.getElementById("progress").value = run.done;
    document.getElementById("count").textContent = `${run.done} of ${run.total}`;
  };
  const source = new EventSource(list.dataset.events);
  source.addEventListener("change", show);
  source.addEventListener("end", reload);
  source.addEventListener("error", () => {
    // Where the browser does not try again by itself (too many listeners, logged out), the page does.
    if (source.readyState === EventSource.CLOSED) setTimeout(reload, 3000);
  });
})();
