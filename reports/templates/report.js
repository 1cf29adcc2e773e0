"use strict";
// One sound at a time.
document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) {
    if (player !== event.target) player.pause();
  }
}, true);

// A click on a spectrogram plays from there.
document.addEventListener("click", (event) => {
  if (!event.target.matches("img.spectrogram")) return;
  const player = event.target.closest(".what").querySelector("audio");
  const share = event.offsetX / event.target.clientWidth;
  const play = () => {
    player.currentTime = share * player.duration;
    player.play().catch(() => {}); // paused before it began: nothing is wrong
  };
  if (Number.isFinite(player.duration)) play();
  else { player.addEventListener("loadedmetadata", play, { once: true }); player.load(); }
});

// Order and filter of each suite's trials.
for (const controls of document.querySelectorAll("form.controls")) {
  const box = controls.nextElementSibling;
  const cards = [...box.querySelectorAll("details.card")];
  const order = controls.querySelector(".order");
  const filter = controls.querySelector(".filter");
  const unfold = controls.querySelector(".unfold");
  const count = controls.querySelector(".count");
  const ranks = new Map(cards.map((card) => [card, card.dataset.ranks.split(" ").map(Number)]));
  const texts = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
  const shown = () => cards.filter((card) => !card.hidden);

  const sort = () => {
    cards.sort((a, b) => ranks.get(a)[order.value] - ranks.get(b)[order.value]);
    box.append(...cards);
  };
  const select = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const card of cards) card.hidden = !words.every((word) => texts.get(card).includes(word));
    count.textContent = `${shown().length} of ${cards.length} trials`;
  };
  order.addEventListener("change", sort);
  filter.addEventListener("input", select);
  unfold.addEventListener("click", () => {
    const open = shown().some((card) => !card.open);
    for (const card of shown()) card.open = open;
  });
  // Cards open and close one by one too: the button says what it will do.
  box.addEventListener("toggle", () => {
    unfold.textContent = shown().some((card) => !card.open) ? "Open all" : "Close all";
  }, true);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  select();
}

// On paper everything with sound is unfolded: its pictures and words are worth printing.
addEventListener("beforeprint", () => {
  for (const card of document.querySelectorAll("details.card:has(audio)")) card.open = true;
});
