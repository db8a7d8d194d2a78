// SPDX-License-Identifier: MIT
// Python in a separate worker, so that the page stays responsive while it trains. Parameters of the address, from index.html:
// pyodide, the folder of Pyodide; wheel, that of crnn, built for the same Pyodide.
const parameters = new URL(self.location).searchParams;

async function start() {
  const folder = parameters.get("pyodide");
  importScripts(folder + "pyodide.js");
  const python = await loadPyodide({ indexURL: folder });
  await python.loadPackage(["numpy", parameters.get("wheel")], { messageCallback: () => {} });
  python.runPython(await (await fetch("trainer.py")).text());
  postMessage({ kind: "ready", about: python.runPython("f'crnn {crnn.__version__}, kernels: {crnn.isa()}'") });
  return python;
}

const ready = start().catch((error) => postMessage({ kind: "error", message: String(error) }));

function report(losses, speed, sample) {
  postMessage({ kind: "progress", losses: losses.toJs(), speed, sample });
}

onmessage = async ({ data }) => {
  const python = await ready;
  if (!python) return;
  try {
    if (data.kind === "train") {
      python.globals.get("train")(data.text, data.cell, data.hidden, data.seconds, report);
      postMessage({ kind: "trained" });
    } else {
      postMessage({ kind: "text", text: python.globals.get("write")(data.prompt, 300, data.temperature) });
    }
  } catch (error) {
    postMessage({ kind: "error", message: String(error).trim().split("\n").pop().replace(/^[\w.]+: /, "") });
  }
};
