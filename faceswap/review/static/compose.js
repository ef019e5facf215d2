// Draw two pictures of the same size on one canvas, so that they can be compared.

const AMPLIFIED = 4; // how much stronger a difference is drawn, to be seen; a power of two

// Show the first picture, or both: "beside", "onion", "difference" or "wipe"; share is that of the first in a wipe, and of the second in an onion skin.
export function compose(canvas, first, second, view, share) {
  const context = canvas.getContext("2d"), { width, height } = first, isBeside = second && view === "beside";
  canvas.width = isBeside ? 2 * width : width;
  canvas.height = height;
  context.drawImage(first, 0, 0);
  if (!second) return;
  if (isBeside) context.drawImage(second, width, 0);
  else if (view === "onion") {
    context.globalAlpha = share;
    context.drawImage(second, 0, 0);
  } else if (view === "difference") {
    context.globalCompositeOperation = "difference";
    context.drawImage(second, 0, 0);
    context.globalCompositeOperation = "lighter";
    for (let times = 1; times < AMPLIFIED; times *= 2) context.drawImage(canvas, 0, 0);
  } else if (view === "wipe") {
    const line = Math.round(share * width);
    context.drawImage(second, line, 0, width - line, height, line, 0, width - line, height);
    context.fillStyle = "#fff";
    context.fillRect(line - 1, 0, 2, height);
  }
  context.globalAlpha = 1;
  context.globalCompositeOperation = "source-over";
}

// Follow the pointer while it is pressed on an element; the action gets the share of the way from left to right, 0 to 1, and the event.
export function follow(element, action) {
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    const at = (moved) => action((moved.clientX - element.getBoundingClientRect().left) / element.clientWidth, moved);
    at(event);
    element.addEventListener("pointermove", at);
    element.addEventListener("pointerup", () => element.removeEventListener("pointermove", at), { once: true });
  });
}

// Turn a share of a canvas element into one of the picture in it, which may have bars at its sides.
export function inPicture(canvas, share) {
  const { width, height, clientWidth, clientHeight } = canvas, scale = Math.min(clientWidth / width, clientHeight / height);
  return Math.min(Math.max((share - 0.5) * clientWidth / (width * scale) + 0.5, 0), 1);
}

// Decode a JPEG in base64.
export function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
}
