// The page: messages, the folded reasoning, tokens per second, and a stop button.

const log = document.querySelector("#log");
const form = document.querySelector("form");
const input = form.querySelector("textarea");
const button = form.querySelector("button");
const status = document.querySelector("#status");
const messages = [];
const worker = new Worker("worker.js", { type: "module" });
let current;

worker.onmessage = ({ data }) => handlers[data.kind](data);
worker.onerror = (error) => handlers.error(error);
worker.postMessage({ kind: "load", folder: new URLSearchParams(location.search).get("model") ?? "model/" });

const handlers = {
  ready() {
    show("ready, offline");
    button.disabled = false;
  },
  text({ reasoning, content, cached, tokensPerSecond }) {
    current.show(reasoning, content);
    show(`${tokensPerSecond.toFixed(1)} tokens/s, ${cached} from the cache`);
  },
  done() {
    messages.push({ role: "assistant", content: current.content.textContent });
    current = undefined;
    button.textContent = "Send";
  },
  error({ message }) {
    show(message);
    current = undefined;
    button.textContent = "Send";
  },
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (current) return worker.postMessage({ kind: "cancel" });
  const content = input.value.trim();
  if (!content) return;
  input.value = "";
  messages.push({ role: "user", content });
  addBubble("user").textContent = content;
  current = new Answer(addBubble("assistant"));
  button.textContent = "Stop";
  worker.postMessage({ kind: "answer", messages });
});

input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  }
});

/** An answer whose reasoning is folded once what follows it begins. */
class Answer {
  constructor(bubble) {
    this.details = bubble.appendChild(document.createElement("details"));
    this.details.append(Object.assign(document.createElement("summary"), { textContent: "Reasoning" }));
    this.reasoning = this.details.appendChild(document.createElement("p"));
    this.content = bubble.appendChild(document.createElement("p"));
    this.details.open = true;
  }

  show(reasoning, content) {
    this.reasoning.textContent = reasoning;
    this.content.textContent = content;
    this.details.hidden = !reasoning;
    this.details.open = !content;
    log.scrollTop = log.scrollHeight;
  }
}

function addBubble(role) {
  const bubble = document.createElement("article");
  bubble.className = role;
  log.append(bubble);
  return bubble;
}

function show(text) {
  status.textContent = text;
}
