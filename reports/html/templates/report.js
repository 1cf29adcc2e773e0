"use strict";
// Only one sound plays at a time; the buttons of its card show which.
document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) {
    if (player !== event.target) player.pause();
  }
  mark(event.target.closest(".card"));
}, true);
document.addEventListener("pause", (event) => mark(event.target.closest(".card")), true);

const mark = (card) => {
  for (const button of card.querySelectorAll(".switch button")) {
    button.setAttribute("aria-pressed", String(!button.player.paused));
  }
};

// Plays a sound. If another one was playing and both follow the source, it continues at the same time.
const change = (card, player) => {
  const other = [...card.querySelectorAll("audio")].find((a) => !a.paused);
  if (other === player) { player.pause(); return; }
  const together = (a) => a.closest(".voice").hasAttribute("data-in-time");
  const moment = other && together(other) && together(player) ? other.currentTime : 0;
  const play = () => {
    player.currentTime = Math.min(moment, player.duration || moment);
    player.play().catch(() => {}); // paused before it began: not an error
  };
  if (player.readyState > 0) play();
  else { player.addEventListener("loadedmetadata", play, { once: true }); player.load(); }
};

// An opened card gets players for the files next to the report, and a button for each sound.
document.addEventListener("toggle", (event) => {
  const card = event.target;
  if (!card.matches?.("details.card") || !card.open || card.querySelector(".switch")) return;
  for (const link of card.querySelectorAll("a.file")) {
    const player = document.createElement("audio");
    player.controls = true;
    player.preload = "none";
    player.src = link.getAttribute("href");
    player.setAttribute("aria-label", link.dataset.label);
    link.parentElement.before(player);
  }
  const players = [...card.querySelectorAll("audio")];
  if (players.length < 2) return;
  const bar = document.createElement("div");
  bar.className = "switch";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Voices of this trial");
  players.forEach((player, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${index + 1} ${player.closest(".voice").dataset.name}`;
    button.setAttribute("aria-pressed", "false");
    button.player = player;
    button.addEventListener("click", () => change(card, player));
    bar.append(button);
  });
  card.querySelector(".about").after(bar);
}, true);
for (const card of document.querySelectorAll("details.card[open]")) {
  card.dispatchEvent(new Event("toggle"));
}

// 1 to 9 switch between the sounds of the card that has the focus, or that played last.
let last = null;
document.addEventListener("play", (event) => { last = event.target.closest(".card"); }, true);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select")) return;
  const card = event.target.closest?.("details.card") ?? last;
  if (!card?.open || !/^[0-9]$/.test(event.key)) return;
  const players = [...card.querySelectorAll("audio")];
  if (event.key === "0") players.forEach((player) => player.pause());
  else if (players[event.key - 1]) change(card, players[event.key - 1]);
});

// Tables are sorted by the numbers of a column; a dash is always last.
for (const table of document.querySelectorAll("table.numbers")) {
  const body = table.tBodies[0];
  const given = [...body.rows];
  const heads = [...table.tHead.rows[0].cells].filter((cell) => cell.rowSpan > 1)
    .concat([...table.tHead.rows[1].cells]);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { null: "descending", descending: "ascending", ascending: null };
      const wanted = next[head.getAttribute("aria-sort")];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (wanted) head.setAttribute("aria-sort", wanted);
      const sign = wanted === "descending" ? -1 : 1;
      const value = (row) => {
        const text = row.cells[column].textContent.trim();
        const number = parseFloat(text);
        return column === 0 ? text : Number.isNaN(number) ? null : number;
      };
      const rows = [...given];
      if (wanted) {
        rows.sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === null || y === null) return (x === null) - (y === null);
          return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
        });
      }
      body.append(...rows);
    });
  });
}

// A click on a spectrogram plays from there.
document.addEventListener("click", (event) => {
  if (!event.target.matches("img.spectrogram")) return;
  const player = event.target.closest(".what").querySelector("audio");
  const share = event.offsetX / event.target.clientWidth;
  const play = () => {
    player.currentTime = share * player.duration;
    player.play().catch(() => {}); // paused before it began: not an error
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
  // Cards are also opened and closed one by one: the button names what it does next.
  box.addEventListener("toggle", () => {
    unfold.textContent = shown().some((card) => !card.open) ? "Open all" : "Close all";
  }, true);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  select();
}

// Cards with sounds are opened for printing: with their spectrograms and texts.
addEventListener("beforeprint", () => {
  for (const card of document.querySelectorAll("details.card:has(audio)")) card.open = true;
});
