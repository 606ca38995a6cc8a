// Runs the student beside the page, so that the page scrolls and stops while it computes.

import { Student } from "./student.js";

let student, cancelled;

const handlers = {
  async load({ folder }) {
    student = await Student.load(folder);
    postMessage({ kind: "ready" });
  },
  async answer({ messages }) {
    cancelled = false;
    for await (const state of student.answer(messages, { isCancelled: () => cancelled })) {
      postMessage({ kind: "text", ...state });
      await new Promise((resume) => setTimeout(resume)); // lets a cancel message in
    }
    postMessage({ kind: "done", cancelled });
  },
  cancel() {
    cancelled = true;
  },
};

onmessage = ({ data }) =>
  Promise.resolve(handlers[data.kind](data)).catch((error) => postMessage({ kind: "error", message: String(error) }));
