// Keeps what is marked with data-live (seconds) fresh: fetches this page again and takes the marked parts out of it. Without this script everything
// works, one click at a time. Nothing is fetched while the page is hidden, and what somebody has opened or is reading stays open.
"use strict";

const parts = () => [...document.querySelectorAll("[data-live]")];
const due = new Map();

async function refresh() {
  if (document.hidden) return;
  const now = Date.now();
  const wanted = parts().filter((part) => (due.get(part.id) ?? 0) <= now && !part.contains(document.activeElement) && !part.querySelector("details[open]:not(.why)"));
  if (!wanted.length) return;
  let fresh;
  try {
    const response = await fetch(location.href, { headers: { "X-Fragment": "1" }, redirect: "error", signal: AbortSignal.timeout(4000) });
    if (response.status === 401) return location.assign("/login");
    if (!response.ok) throw new Error(response.status);
    fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale");
    return;
  }
  for (const part of wanted) {
    due.set(part.id, now + 1000 * Number(part.dataset.live));
    const next = fresh.getElementById(part.id);
    if (next && next.innerHTML !== part.innerHTML) part.replaceChildren(...next.childNodes);
  }
}

for (const part of parts()) due.set(part.id, Date.now() + 1000 * Number(part.dataset.live));
if (due.size) setInterval(refresh, 1000);
