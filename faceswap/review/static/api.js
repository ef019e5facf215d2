// Talk to the server. What went wrong is shown to the user in one line.

const notice = document.getElementById("notice");
let hiding = 0;

export function tell(text) {
  notice.textContent = text;
  notice.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { notice.hidden = true; }, 6000);
}

async function answer(response) {
  const value = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(value.error);
  return value;
}

// An error that the user has been told, so that nothing else needs to handle it.
class ToldError extends Error {}

addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof ToldError) event.preventDefault();
});

async function telling(request) {
  try {
    return await answer(await request);
  } catch (error) {
    tell(error instanceof TypeError ? "the server does not answer; is faceswap review still running?" : error.message);
    throw new ToldError(error.message);
  }
}

// Put a comma where the command line prints two spaces.
export const parted = (words) => words.replaceAll(/ {2,}/g, ", ");

// Whether a key belongs to the form field that has the focus.
export function typesIn({ target, key }) {
  return target.matches("select, input[type=number]") || (target.matches("input[type=range]") && key.length > 1);
}

// Write the names of a model's people behind a and b.
export function nameFaces(model, to) {
  for (const option of to.options) {
    const name = model.selectedOptions[0]?.dataset[option.value];
    option.textContent = name ? `${option.value}: ${name}` : option.value;
  }
}

// Load an image, to be drawn on a canvas.
export async function picture(address) {
  const found = await fetch(address);
  if (!found.ok) await answer(found);
  return createImageBitmap(await found.blob());
}

export const get = (address) => telling(fetch(address));

export const post = (address, value) => telling(fetch(address, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(value),
}));
