"use strict";
(() => {
  const { test, words, code, headphones } = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("main");
  const screens = new Map(test.screens.map((screen) => [screen.screen, screen]));
  const query = new URLSearchParams(location.search);
  const ROUNDS = 6; // of the headphone check
  const GUARD = 350; // ms in which a second click on a new screen is ignored
  let player = null; // the sound that plays, with its button
  let shown = 0; // when the screen was shown, by performance.now()
  let state = null;

  // --- storage

  const PARTICIPANTS = ["PROLIFIC_PID", "participant", "listener", "workerId", "SESSION_ID"];
  const cleaned = (text) => (text || "").trim().replace(/[^A-Za-z0-9_.-]/g, "_")
    .replace(/^[-.]+/, "").slice(0, 64);
  const given = cleaned(PARTICIPANTS.map((name) => query.get(name)).find(Boolean));
  const prefix = `listening-test-${test.test_id}`;

  function stored(name) {
    try { return localStorage.getItem(name); } catch { return null; }
  }
  function store(name, value) {
    try { localStorage.setItem(name, value); return true; } catch { return false; }
  }
  const keeps = store(`${prefix}-probe`, "1");

  function save() {
    if (!state) return;
    store(`${prefix}-${state.listener}`, JSON.stringify(state));
    store(`${prefix}-last`, state.listener);
  }

  function restore(listener) {
    if (!listener) return null;
    try {
      const old = JSON.parse(stored(`${prefix}-${listener}`));
      return old && old.listener === listener && test.groups[old.group] ? old : null;
    } catch { return null; }
  }

  function hashed(text) { // FNV-1a, 32 bits
    let hash = 0x811c9dc5;
    for (const character of text) {
      hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193) >>> 0;
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b) >>> 0;
    return (hash ^ (hash >>> 13)) >>> 0;
  }

  function groupOf(listener) {
    const asked = query.get("group");
    if (asked !== null && /^\d+$/.test(asked) && Number(asked) < test.groups.length) {
      return Number(asked);
    }
    return hashed(listener) % test.groups.length;
  }

  function fresh(listener) {
    return { listener, group: groupOf(listener), phase: "headphones", round: 0, correct: 0,
      checked: false, at: 0, trained: [], answers: [], now: null };
  }

  // --- building blocks

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.startsWith("aria-") || name === "for") made.setAttribute(name, value);
      else made[name] = value;
    }
    made.append(...children);
    return made;
  }

  const filled = (text, values) => text.replace(/\{(\w+)\}/g, (whole, key) =>
    key in values ? values[key] : whole);

  function show(...children) {
    stop();
    main.replaceChildren(...children);
    shown = performance.now();
    const title = main.querySelector("h1");
    if (title) { title.tabIndex = -1; title.focus({ preventScroll: true }); }
    window.scrollTo(0, 0);
  }

  function button(text, action, properties = {}) {
    const made = element("button", { type: "button", ...properties }, text);
    made.addEventListener("click", () => {
      if (made.dataset.guarded && performance.now() - shown < GUARD) return;
      action(made);
    });
    return made;
  }

  function onward(text, action) {
    const made = button(text, action, { className: "main" });
    made.dataset.guarded = "1";
    return made;
  }

  // --- sound

  function stop() {
    if (!player) return;
    const { audio, button: pressed, label } = player;
    player = null;
    audio.pause();
    pressed.classList.remove("playing");
    pressed.textContent = label;
  }

  function clip(id, label, name, onEnd) {
    const audio = new Audio();
    audio.preload = "auto";
    audio.src = `audio/${id}.wav`;
    const status = element("span", { className: "state" });
    const key = name === "reference" ? "reference" : id;
    const text = `${words.play} ${label}`;
    const mark = () => { status.textContent = played(key) ? `✓ ${words.played}` : ""; };
    const pressed = button(text, async () => {
      const mine = player && player.audio === audio;
      stop();
      if (mine) return;
      if (audio.error) audio.load();
      audio.currentTime = 0;
      player = { audio, button: pressed, label: text };
      pressed.classList.add("playing");
      pressed.textContent = `${words.stop} ${label}`;
      try {
        await audio.play();
      } catch (error) {
        if (error.name !== "AbortError") { stop(); fail(status); }
      }
    });
    audio.addEventListener("error", () => {
      if (player && player.audio === audio) { stop(); fail(status); }
    });
    audio.addEventListener("ended", () => {
      if (player && player.audio === audio) stop();
      state.now.played[key] = played(key) + 1;
      mark();
      save();
      onEnd();
    });
    mark();
    return element("div", { className: "clip" }, pressed, status);
  }

  function fail(status) {
    status.textContent = words.no_sound;
    status.setAttribute("role", "alert");
  }

  const played = (key) => (state.now && state.now.played[key]) || 0;

  // --- headphone check: three tones, one of them quieter, one in antiphase (Woods et al. 2017)

  function tones(round) {
    const Context = window.AudioContext || window.webkitAudioContext;
    if (!Context) return null;
    const seed = hashed(`${state.listener}/${round}`);
    const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    const order = orders[seed % 6]; // 0 plain, 1 antiphase, 2 quiet
    return { quiet: order.indexOf(2), play: () => {
      const context = new Context();
      const rate = context.sampleRate;
      const seconds = 1, pause = 0.5, ramp = 0.1;
      const buffer = context.createBuffer(2, Math.ceil(rate * 3 * (seconds + pause)), rate);
      order.forEach((kind, place) => {
        const first = Math.round(place * (seconds + pause) * rate);
        for (let i = 0; i < seconds * rate; i++) {
          const t = i / rate;
          const edge = Math.min(1, t / ramp, (seconds - t) / ramp);
          const value = 0.2 * (kind === 2 ? 0.5 : 1) * edge * Math.sin(2 * Math.PI * 200 * t);
          buffer.getChannelData(0)[first + i] = value;
          buffer.getChannelData(1)[first + i] = kind === 1 ? -value : value;
        }
      });
      const source = context.createBufferSource();
      source.buffer = buffer;
      source.connect(context.destination);
      const ended = new Promise((resolve) => { source.onended = resolve; });
      context.resume();
      source.start();
      return { ended, context };
    } };
  }

  function showHeadphones() {
    const sound = headphones ? tones(state.round) : null;
    if (!sound || state.round >= ROUNDS) {
      state.checked = Boolean(sound) || state.round >= ROUNDS;
      state.phase = test.training.length ? "training" : "test";
      save();
      showScreen();
      return;
    }
    const choices = element("fieldset", { disabled: true },
      element("legend", {}, words.headphones));
    [0, 1, 2].forEach((place) => {
      const choice = onward(filled(words.tone, { number: place + 1 }), () => {
        if (sound.context) sound.context.close();
        state.correct += place === sound.quiet ? 1 : 0;
        state.round += 1;
        save();
        showHeadphones();
      });
      choice.className = "";
      choices.append(choice, " ");
    });
    const press = button(words.play, async () => {
      press.disabled = true;
      const { ended, context } = sound.play();
      sound.context = context;
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 5500))]);
      press.disabled = false;
      choices.disabled = false;
    });
    show(
      element("h1", {}, words.title),
      element("p", { className: "small" },
        filled(words.headphones_round, { number: state.round + 1, count: ROUNDS })),
      element("p", {}, press),
      choices);
  }

  // --- the screens

  function showScreen() {
    const training = state.phase === "training"; // its answers do not count
    const order = training ? test.training : test.groups[state.group];
    if (state.at >= order.length) {
      if (training) { showBegin(); return; }
      state.phase = "done";
      save();
      showDone();
      return;
    }
    const screen = screens.get(order[state.at]);
    if (!state.now || state.now.screen !== screen.screen) {
      state.now = { screen: screen.screen, ratings: {}, played: {}, seconds: 0 };
      save();
    }
    const pair = ["ab", "abx", "cmos"].includes(test.kind);
    const many = test.kind === "mushra";
    const turn = many ? (state.group + state.at) % screen.stimuli.length : 0;
    const places = [...screen.stimuli.slice(turn), ...screen.stimuli.slice(0, turn)];
    const needed = [...screen.stimuli, ...(screen.reference ? ["reference"] : [])];
    const ready = () => needed.every((key) => played(key) > 0);
    const rated = () => (pair || !many
      ? screen.stimuli[0] in state.now.ratings
      : screen.stimuli.every((id) => id in state.now.ratings));
    const next = onward(words.next, () => {
      if (!ready() || !rated() || state.now.screen !== screen.screen) return;
      keep(screen, places);
    });
    const hint = element("p", { className: "small", role: "status" });
    const form = element("fieldset", {}, element("legend", {}, words.question));
    const update = () => {
      form.disabled = !many && !ready();
      next.disabled = !(ready() && rated());
      hint.textContent = !ready() ? words.listen_first : many && !rated() ? words.rate_all : "";
    };
    const names = pair ? [words.first, words.second]
      : places.map((_, i) => filled(words.clip, { number: i + 1 }));
    const clips = element("div", { className: "clips" });
    if (screen.reference) clips.append(clip(screen.reference, words.reference, "reference", update));
    if (many) sliders(form, places, names, update);
    else {
      places.forEach((id, i) => clips.append(
        clip(id, pair ? names[i] : filled(words.clip, { number: "" }).trim(), id, update)));
      choices(form, screen.stimuli[0], update);
    }
    const parts = [
      element("p", { className: "small" },
        filled(words.progress, { number: state.at + 1, count: order.length })),
      element("progress", { max: order.length, value: state.at,
        "aria-label": filled(words.progress, { number: state.at + 1, count: order.length }) }),
      element("h1", {}, words.question),
      clips];
    if (training) parts.unshift(element("p", { className: "notice training" }, words.training));
    if (test.notice) parts.push(element("p", { className: "small" }, test.notice));
    show(...parts, form, hint, element("nav", {}, next));
    form.querySelector("legend").className = "unseen"; // the heading says it
    update();
  }

  function choices(form, id, update) {
    const labels = Object.entries(test.scale.labels)
      .map(([value, name]) => [Number(value), name]).sort((a, b) => b[0] - a[0]);
    const numbered = test.scale.lowest > 0;
    for (const [value, name] of labels) {
      const input = element("input", { type: "radio", name: "rating", value: String(value),
        checked: state.now.ratings[id] === value });
      input.addEventListener("change", () => {
        state.now.ratings[id] = value;
        save();
        update();
      });
      const label = element("label", { className: "choice" }, input);
      if (numbered) label.append(element("span", { className: "value" }, String(value)));
      label.append(element("span", {}, name));
      form.append(label);
    }
  }

  function sliders(form, places, names, update) {
    const labels = Object.entries(test.scale.labels)
      .sort((a, b) => Number(a[0]) - Number(b[0])).map(([, name]) => name);
    places.forEach((id, i) => {
      const known = state.now.ratings[id];
      const output = element("output", {}, known === undefined ? "–" : String(known));
      const input = element("input", { type: "range", min: String(test.scale.lowest),
        max: String(test.scale.highest), step: String(test.scale.step),
        value: String(known === undefined ? test.scale.lowest : known),
        "aria-label": names[i] });
      const take = () => {
        state.now.ratings[id] = Number(input.value);
        output.textContent = input.value;
        save();
        update();
      };
      input.addEventListener("input", take);
      input.addEventListener("change", take);
      input.addEventListener("click", take); // a click on the lowest value changes nothing
      form.append(element("div", { className: "slider" }, clip(id, names[i], id, update),
        element("div", { className: "row" }, input, output),
        element("div", { className: "names" },
          ...labels.map((name) => element("span", {}, name)))));
    });
  }

  function keep(screen, places) {
    const { ratings, played: counts } = state.now;
    const seconds = state.now.seconds + (performance.now() - shown) / 1000;
    const pair = ["ab", "abx", "cmos"].includes(test.kind);
    const stimuli = pair ? [screen.stimuli[0]] : screen.stimuli;
    const answers = state.phase === "training" ? state.trained : state.answers;
    answers[state.at] = stimuli.map((id) => ({
      screen: screen.screen, stimulus: id, rating: ratings[id], seconds: seconds.toFixed(2),
      played: pair ? Math.min(...screen.stimuli.map((s) => counts[s] || 0)) : counts[id] || 0,
      other: pair ? screen.stimuli[1] : "", place: places.indexOf(id),
      reference_played: screen.reference ? counts.reference || 0 : "" }));
    state.at += 1;
    state.now = null;
    save();
    showScreen();
  }

  function showBegin() {
    show(element("h1", {}, words.title), element("p", {}, words.training_done),
      element("nav", {}, onward(words.begin, () => {
        state.phase = "test";
        state.at = 0;
        state.now = null;
        save();
        showScreen();
      })));
  }

  function remember() { // the time on this screen, before the page goes away
    if (!state || !state.now) return;
    state.now.seconds += (performance.now() - shown) / 1000;
    shown = performance.now();
    save();
  }

  // --- the beginning and the end

  function showWelcome() {
    const old = restore(given || stored(`${prefix}-last`));
    if (old && (given || old.phase !== "done")) { begin(old); return; }
    const input = element("input", { type: "text", id: "participant", value: given,
      maxLength: 64, autocomplete: "off", autocapitalize: "off", spellcheck: false });
    const start = onward(words.start, () => {
      const listener = given || cleaned(input.value);
      if (!listener) { input.focus(); return; }
      begin(restore(listener) || fresh(listener));
    });
    const update = () => { start.disabled = !given && !cleaned(input.value); };
    input.addEventListener("input", update);
    const parts = [
      element("h1", {}, words.title), element("p", {}, words.welcome),
      element("p", { className: "notice" }, words.instructions),
      element("p", {}, words.volume)];
    if (test.kind !== "mushra") parts.push(element("p", {}, words.checks));
    if (test.notice) parts.push(element("p", {}, test.notice));
    if (!keeps) parts.push(element("p", { className: "notice error" }, words.no_storage));
    if (!given) {
      parts.push(element("p", {}, element("label", { for: "participant" }, words.participant),
        input, element("span", { className: "small" }, words.participant_hint)));
    }
    show(...parts, element("nav", {}, start));
    update();
  }

  function begin(known) {
    state = known;
    save();
    history.pushState({ test: true }, "");
    if (state.phase === "done") showDone();
    else if (state.phase === "headphones") showHeadphones();
    else showScreen();
  }

  function csv() {
    const heads = ["test_id", "listener", "group", "screen", "stimulus", "rating", "position",
      "seconds", "played", "other", "place", "reference_played", "headphones", "phase"];
    const rows = [["training", state.trained], ["test", state.answers]].flatMap(([phase, all]) =>
      all.flatMap((answers, position) => answers.map((answer) => ({
        ...answer, position, test_id: test.test_id, listener: state.listener, group: state.group,
        headphones: state.checked ? state.correct : "", phase }))));
    const lines = rows.map((row) => heads.map((head) => String(row[head])).join(","));
    return [heads.join(","), ...lines, ""].join("\n");
  }

  function showDone() {
    const name = `ratings-${test.test_id}-${state.listener}.csv`;
    const download = button(words.save, () => {
      const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
      const link = element("a", { href: address, download: name });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
    }, { className: "main", id: "save" });
    const copy = button(words.copy, async () => {
      try {
        await navigator.clipboard.writeText(csv());
        copy.textContent = words.copied;
      } catch {
        const text = element("textarea", { value: csv(), rows: 8, readOnly: true });
        text.style.width = "100%";
        copy.replaceWith(text);
        text.select();
      }
    });
    show(element("h1", {}, words.done), element("p", {}, words.save_hint),
      element("nav", {}, copy, download),
      element("p", {}, words.code), element("p", { className: "code", id: "code" }, code));
  }

  window.addEventListener("popstate", () => {
    if (!state || state.phase === "done") return;
    history.pushState({ test: true }, "");
    if (!main.querySelector(".back")) {
      main.prepend(element("p", { className: "notice back", role: "alert" }, words.no_back));
    }
  });
  window.addEventListener("pagehide", remember);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") remember();
    else shown = performance.now();
  });
  showWelcome();
})();
