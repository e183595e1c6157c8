// @ts-check
/**
 * The page: form and keys in, turns and status out. What a run is stands in `gateway.js`.
 *
 * @module
 */
import { GatewayError } from "./events.js";
import { EventSourceRun } from "./eventsource.js";
import { Run } from "./gateway.js";
import { find, Turn } from "./view.js";
import { finish, givingUp, sentence, waiting } from "./words.js";

/** @import { RunEvent } from "./events.js" */

const log = find("log", HTMLElement);
const status = find("status", HTMLElement);
const form = find("ask", HTMLFormElement);
const text = find("text", HTMLTextAreaElement);
const send = find("send", HTMLButtonElement);
const stop = find("stop", HTMLButtonElement);
const useEventSource = find("eventsource", HTMLInputElement);

const ANSWERING = "Answering…";

/** @type {Run | EventSourceRun | null} */
let running = null;
/** @type {string | null} */
let conversationId = null;

/** @param {string} question */
function ask(question) {
  find("welcome", HTMLElement).hidden = true;
  const asked = { text: question, conversationId };
  const run = useEventSource.checked ? new EventSourceRun(asked) : new Run(asked);
  void follow(run, new Turn(log, question), question);
}

/**
 * @param {Run | EventSourceRun} run
 * @param {Turn} turn
 * @param {string} question
 */
async function follow(run, turn, question) {
  const again = { label: "Ask again", act: () => ifIdle(() => ask(question)) };
  const say = speaker(turn, again);
  begin(run);
  turn.busy = true;
  try {
    // A run that a new chat has put aside is still followed until it has stopped.
    const show = (/** @type {RunEvent} */ event) => running === run && say(event);
    if (run instanceof Run) for await (const event of run.follow()) show(event);
    else await run.follow(show);
  } catch (error) {
    if (running !== run) return;
    if (!(error instanceof GatewayError)) console.error(error); // a bug of the page
    const reason = error instanceof GatewayError ? error : new GatewayError("internal");
    if (reason.code === "not_found") conversationId = null;
    const goOn = () => void follow(run, turn, question);
    const resume = { label: "Reconnect", act: () => ifIdle(goOn) };
    const mendable = ["connection_lost", "silent", "unreachable"].includes(reason.code);
    turn.note(givingUp(reason), mendable && run instanceof Run ? resume : again);
    announce(givingUp(reason));
  } finally {
    turn.busy = false;
    if (running === run) rest();
  }
}

/**
 * Shows a run's events in a turn.
 *
 * @param {Turn} turn
 * @param {{ label: string, act: () => boolean }} again
 * @returns {(event: RunEvent) => void}
 */
function speaker(turn, again) {
  let progress = "Waiting for the answer…";
  let ending = "Answer complete.";
  return (event) => {
    switch (event.type) {
      case "start":
        conversationId = event.conversation_id;
        turn.model = event.model;
        return announce(progress);
      case "token":
        turn.append(event.text);
        if (progress === ANSWERING) return; // said once: it must not talk over "Stopping…"
        return announce((progress = ANSWERING));
      case "retract":
        return turn.retract(event.text);
      case "final": {
        turn.settle(event.text);
        const remark = finish(event.finish_reason);
        if (remark) turn.note(remark);
        return;
      }
      case "error":
        ending = sentence(event.code, event.message);
        return turn.note(ending, again);
      case "done":
        if (event.status === "cancelled") turn.note((ending = "Stopped."));
        return announce(ending);
      case "wait":
        return announce(waiting(event));
      case "open":
        return announce(progress);
    }
  };
}

/** @param {Run | EventSourceRun} run */
function begin(run) {
  running = run;
  log.ariaBusy = "true"; // a screen reader then reads the answer once, not token by token
  send.hidden = true;
  stop.hidden = false;
  announce("Sending…");
}

function rest() {
  running = null;
  log.ariaBusy = "false";
  if (document.activeElement === stop) text.focus(); // it is about to go
  stop.hidden = true;
  send.hidden = false;
}

/** One run at a time. @param {() => void} act @returns {boolean} whether it was done */
function ifIdle(act) {
  text.focus(); // the button that was pressed may go
  if (running) {
    announce("Please wait for the answer, or stop it first.");
    return false;
  }
  act();
  return true;
}

function stopRun() {
  if (!running) return;
  announce("Stopping…");
  running.stop();
}

/** @param {string} words */
function announce(words) {
  if (status.textContent !== words) status.textContent = words;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = text.value;
  if (question.trim() === "") return;
  if (ifIdle(() => ask(question))) text.value = "";
});

text.addEventListener("keydown", (event) => {
  // While an input method composes, Enter picks a candidate (229: Safari ends composing first).
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  form.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) stopRun();
});

stop.addEventListener("click", stopRun);

find("fresh", HTMLButtonElement).addEventListener("click", () => {
  running?.stop();
  conversationId = null;
  rest();
  log.replaceChildren();
  find("welcome", HTMLElement).hidden = false;
  announce("");
  text.focus();
});
