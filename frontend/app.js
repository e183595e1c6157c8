// @ts-check
/**
 * The page: form and keys in, turns and status out. What a run is stands in `gateway.js`, who the
 * browser is to the gateway in `session.js`.
 *
 * @module
 */
import { GatewayError } from "./events.js";
import { EventSourceRun } from "./eventsource.js";
import { Run } from "./gateway.js";
import { currentSession, signOut } from "./session.js";
import { SignIn } from "./signin.js";
import { find, toBottom, Turn } from "./view.js";
import { finish, givingUp, sentence, waiting } from "./words.js";

/** @import { RunEvent } from "./events.js" */
/** @import { Session } from "./session.js" */

const log = find("log", HTMLElement);
const status = find("status", HTMLElement);
const form = find("ask", HTMLFormElement);
const text = find("text", HTMLTextAreaElement);
const send = find("send", HTMLButtonElement);
const stop = find("stop", HTMLButtonElement);
const welcome = find("welcome", HTMLElement);
const leave = find("sign-out", HTMLButtonElement);
const signIn = new SignIn(signedIn);
const useEventSource = find("eventsource", HTMLInputElement);

const ANSWERING = "Answering…";
/** Where the same run may be followed further, and what the button says that does it. */
const MENDABLE = new Map([
  ["connection_lost", "Reconnect"],
  ["silent", "Reconnect"],
  ["unreachable", "Reconnect"],
  ["unauthorized", "Go on"],
]);

/** @type {Run | EventSourceRun | null} */
let running = null;
/** Settles when the last run that was followed no longer is; never rejects. */
let followed = Promise.resolve();
/** @type {string | null} */
let conversationId = null;
/** What goes on with the last question, if it failed. @type {HTMLElement | null} */
let unfinished = null;

/** @param {string} question */
function ask(question) {
  welcome.hidden = true;
  const asked = { text: question, conversationId };
  const run = useEventSource.checked ? new EventSourceRun(asked) : new Run(asked);
  followed = follow(run, new Turn(log, question), question);
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
    const goOn = () => void (followed = follow(run, turn, question));
    const label = MENDABLE.get(reason.code);
    const resume = label && run instanceof Run && { label, act: () => ifIdle(goOn) };
    unfinished = turn.note(givingUp(reason), resume || again);
    announce(givingUp(reason));
    if (reason.status === 401) askToSignIn();
    if (reason.code === "eventsource_closed") void look(); // it may have been a 401
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
        unfinished = turn.note(ending, again);
        if (event.code === "unauthorized") askToSignIn(); // of an EventSource; a Run throws it
        return;
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
  unfinished = null;
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
  if (signIn.isOpen) {
    announce("Please sign in first.");
    signIn.focus();
    return false;
  }
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

/** Finds out who the browser is. When that fails, the first question tells. */
async function look() {
  const session = await currentSession().catch(() => undefined);
  if (session) greet(session);
  else if (session === null) askToSignIn();
}

/** Shows the form; what was asked, and what is being typed, stays where it is. */
function askToSignIn() {
  if (signIn.isOpen) return;
  leave.hidden = true;
  welcome.hidden = true;
  form.hidden = text.value === "";
  signIn.open();
  // What somebody is typing must not go on in a field for a key.
  if (form.hidden || document.activeElement !== text) signIn.focus();
  toBottom();
}

/** @param {Session} session */
function greet(session) {
  leave.hidden = session.caller === "anonymous";
}

/** @param {Session} session */
function signedIn(session) {
  greet(session);
  form.hidden = false;
  welcome.hidden = log.hasChildNodes();
  announce("Signed in.");
  (unfinished?.isConnected ? unfinished : text).focus();
}

async function leaveSession() {
  announce("Signing out…");
  running?.stop();
  await followed; // the stop needs the session
  try {
    await signOut();
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
    return announce(givingUp(error));
  }
  text.value = "";
  startAnew();
  askToSignIn();
  announce("Signed out.");
}

function startAnew() {
  running?.stop();
  conversationId = null;
  rest();
  log.replaceChildren();
  welcome.hidden = signIn.isOpen;
  announce("");
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
  startAnew();
  text.focus();
});

leave.addEventListener("click", () => void leaveSession());

void look();
