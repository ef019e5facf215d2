// The jobs as they go, told by the server.

import { parted, post, tell } from "/static/api.js";

const PAGE = /^(training|conversion|review|compare)(\/[0-9a-f]{12})?$/;
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

// When a job was started, in the user's time zone.
function began(job) {
  const at = new Date(job.started), today = at.toDateString() === new Date().toDateString();
  return job.started ? `started ${at.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" })}` : "";
}

function item(job) {
  const made = element("li", "", `panel job ${job.state}`), head = element("div", "", "head");
  made.dataset.job = job.id;
  made.dataset.state = job.state;
  head.append(element("strong", ""), element("span", job.state, "state"), element("span", "", "grow"), element("span", began(job), "muted"));
  head.append(["running", "waiting"].includes(job.state) ? button("Stop", job, "stop") : button("Run again", job, "again"));
  const bar = document.createElement("progress"), log = document.createElement("details");
  bar.max = 1;
  bar.setAttribute("aria-label", job.title);
  log.append(element("summary", ""), element("pre", ""));
  made.append(head, bar, log);
  return made;
}

// Link the title to the result's page, or to the list of such pages until there is a result.
function titled(job) {
  const [address, section] = PAGE.exec(job.about) ?? [];
  if (!section) return job.title;
  const isThere = job.done !== null || section !== "training", isSeen = section === "conversion" && job.state === "done";
  return Object.assign(element("a", job.title), { href: isSeen ? "/review" : `/${isThere ? address : section}` });
}

// Write what changes while a job runs; its buttons stay the same, so that a click on one is never lost.
function update(made, job) {
  const bar = made.querySelector("progress"), title = titled(job), shown = made.querySelector("strong");
  if (!shown.hasChildNodes() || shown.querySelector("a")?.href !== title.href) shown.replaceChildren(title);
  if (job.done !== null) bar.value = job.done;
  else if (job.state !== "running") bar.value = 0;
  made.querySelector("summary").textContent = job.state === "waiting" ? "waits until another one like it is done" : parted(job.words) || (job.state === "done" ? "done" : "nothing printed yet");
  made.querySelector("pre").textContent = `faceswap ${job.command.join(" ")}\n${job.log}`;
}

function show(jobs) {
  const known = new Map([...list.querySelectorAll("[data-job]")].map((made) => [made.dataset.job, made]));
  const wanted = jobs.map((job) => {
    const before = known.get(job.id), made = before?.dataset.state === job.state ? before : item(job);
    if (before && made !== before) made.querySelector("details").open = before.querySelector("details").open;
    update(made, job);
    return made;
  });
  if (!jobs.length) wanted.push(element("li", "No job was started from here yet.", "muted"));
  if (wanted.some((made, at) => list.children[at] !== made) || list.children.length !== wanted.length) list.replaceChildren(...wanted);
}

const events = new EventSource("/jobs/events");
events.addEventListener("message", (event) => show(JSON.parse(event.data)));
events.addEventListener("error", () => tell("the server does not answer; is faceswap review still running?"));
