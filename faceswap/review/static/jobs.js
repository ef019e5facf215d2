// The jobs as they go, told by the server.

import { post, tell } from "/static/api.js";

const list = document.getElementById("jobs");

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function button(text, job, action) {
  const made = element("button", text);
  made.addEventListener("click", async () => {
    made.disabled = true;
    show(await post(`/jobs/${job.id}`, { action }));
  });
  return made;
}

function item(job) {
  const made = element("li", "", `panel job ${job.state}`), head = element("div", "", "head");
  made.dataset.job = job.id;
  head.append(element("strong", job.title), element("span", job.state, "state"), element("span", "", "grow"));
  head.append(job.state === "running" ? button("Stop", job, "stop") : button("Run again", job, "again"));
  const bar = document.createElement("progress");
  bar.max = 1;
  if (job.done !== null) bar.value = job.done;
  else if (job.state !== "running") bar.value = 0;
  bar.setAttribute("aria-label", job.title);
  const log = document.createElement("details");
  log.append(element("summary", job.words || "nothing printed yet"), element("pre", `faceswap ${job.command.join(" ")}\n${job.log}`));
  made.append(head, bar, log);
  return made;
}

function show(jobs) {
  const open = new Set([...list.querySelectorAll("details[open]")].map((one) => one.closest("li").dataset.job));
  list.replaceChildren(...jobs.map(item));
  for (const one of list.children) if (open.has(one.dataset.job)) one.querySelector("details").open = true;
  if (!jobs.length) list.append(element("li", "No job was started from here yet.", "muted"));
}

const events = new EventSource("/jobs/events");
events.addEventListener("message", (event) => show(JSON.parse(event.data)));
events.addEventListener("error", () => tell("the server does not answer; is faceswap review still running?"));
