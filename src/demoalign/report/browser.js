"use strict";
// The browser of sample prompts, and the main table's choice of n. Text is only ever set as
// text, never as markup: it is model output. Reads the JSON that page.py embeds:
// {selectors: [name], first: name|null, samples: [{id, prompt: [[role, text]], demonstration,
//  greedy: [text, golden], chosen: {selector: index},
//  candidates: [{text, tokens, cut, golden, scores: {selector: value}}]}]}
(() => {
  const SHOWN = 6;
  const data = JSON.parse(document.getElementById("data").textContent);

  const element = (tag, className, ...children) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children.filter((child) => child !== null));
    return made;
  };
  const words = (text) => {
    const made = element("p", "text", text);
    made.dir = "auto";
    return made;
  };
  const number = (value) =>
    value === null || value === undefined
      ? "not measured"
      : (Object.is(value, -0) ? 0 : value).toFixed(2).replace("-", "\u2212");
  const fact = (label, value) => element("span", "", `${label} `, element("b", "", value));

  const choice = document.getElementById("n-choice");
  if (choice) {
    choice.parentElement.hidden = false;
    choice.addEventListener("change", () => {
      for (const body of document.querySelectorAll("#main tbody[data-n]")) {
        body.hidden = body.dataset.n !== choice.value;
      }
    });
  }

  const root = document.getElementById("browser");
  if (!root || data.samples.length === 0) return;

  const labelled = (label, className, options) => {
    const select = element("select", "");
    options.forEach((text, i) => {
      const option = element("option", "", text);
      option.value = String(i);
      select.append(option);
    });
    return [element("label", className, label, select), select];
  };
  const short = (sample, i) => {
    const last = sample.prompt.length ? sample.prompt[sample.prompt.length - 1][1] : "";
    const line = Array.from(last.replace(/\s+/g, " ").trim());
    return `${i + 1}. ${line.slice(0, 70).join("")}${line.length > 70 ? "\u2026" : ""}`;
  };
  const [promptLabel, promptChoice] = labelled("Prompt", "prompt-choice", data.samples.map(short));
  const selectors = data.selectors.length ? data.selectors : ["none stored"];
  const [selectorLabel, selectorChoice] = labelled("Sort and choose by", "", selectors);
  selectorChoice.value = String(Math.max(0, selectors.indexOf(data.first)));
  const back = element("button", "", "Previous");
  const next = element("button", "", "Next");
  back.type = next.type = "button";
  const view = element("div", "");
  const status = element("p", "meta");
  status.setAttribute("role", "status");
  root.append(element("div", "pick", promptLabel, selectorLabel, element("div", "turn", back, next)), status, view);

  const candidateItem = (candidate, rank, selector, isChosen) => {
    const score = candidate.scores[selector];
    const meta = element(
      "p", "meta",
      element("span", "", `#${rank}`),
      isChosen ? element("span", "badge", `\u2713 chosen by ${selector}`) : null,
      fact("score", number(score)),
      fact("golden", number(candidate.golden)),
      fact("tokens", candidate.tokens === null ? "not measured" : String(candidate.tokens)),
      candidate.cut ? element("span", "", "cut at the token limit") : null,
    );
    return element("li", isChosen ? "said chosen" : "said", meta, words(candidate.text));
  };

  const answer = (title, text, golden) =>
    element(
      "div", "said",
      element("h3", "", title),
      golden === undefined ? null : element("p", "meta", fact("golden", number(golden))),
      text === null ? element("p", "absent", "not stored") : words(text),
    );

  const show = (all) => {
    const index = Number(promptChoice.value);
    const sample = data.samples[index];
    const selector = selectors[Number(selectorChoice.value)];
    const value = (i) => sample.candidates[i].scores[selector] ?? -Infinity;
    const order = sample.candidates.map((_, i) => i).sort((a, b) => value(b) - value(a) || a - b);
    const chosen = Object.hasOwn(sample.chosen, selector) ? sample.chosen[selector] : -1;
    const listed = all ? order : order.filter((i, rank) => rank < SHOWN || i === chosen);
    back.disabled = index === 0;
    next.disabled = index === data.samples.length - 1;

    const prompt = element("div", "said prompt", element("h3", "", `Prompt ${sample.id}`));
    for (const [role, text] of sample.prompt) {
      if (role) prompt.append(element("p", "meta", role));
      prompt.append(words(text));
    }
    const list = element("ol", "candidates");
    for (const i of listed) {
      list.append(candidateItem(sample.candidates[i], order.indexOf(i) + 1, selector, i === chosen));
    }
    status.textContent = `${listed.length} of ${order.length} candidates, sorted by ${selector}`;
    view.replaceChildren(
      prompt,
      element(
        "div", "pair",
        answer("Demonstration", sample.demonstration),
        answer("SFT policy, greedy", sample.greedy[0], sample.greedy[1]),
      ),
      element("h3", "", "Candidates of the SFT policy"), list,
    );
    if (listed.length < order.length) {
      const more = element("button", "", `Show all ${order.length}`);
      more.type = "button";
      more.addEventListener("click", () => {
        show(true);
        const first = view.querySelectorAll(".candidates li")[listed.length];
        first.tabIndex = -1;
        first.focus();
      });
      view.append(more);
    }
  };
  const move = (step) => {
    promptChoice.value = String(Number(promptChoice.value) + step);
    show(false);
  };
  back.addEventListener("click", () => move(-1));
  next.addEventListener("click", () => move(1));
  promptChoice.addEventListener("change", () => show(false));
  selectorChoice.addEventListener("change", () => show(false));
  show(false);
})();
