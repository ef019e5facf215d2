// Start a training.

import { post } from "/static/api.js";

document.getElementById("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { a, b, model, minutes } = Object.fromEntries(new FormData(event.target));
  const started = await post("/training", { a, b, model, minutes: minutes ? Number(minutes) : null });
  location.assign(started.model ? `/training/${started.model}` : "/jobs");
});
