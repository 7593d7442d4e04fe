// The gateway's own Replicate API, as any client uses it.

export class Failed extends Error {}

let token = "";

export function useToken(value) {
  token = value;
}

async function request(path, options = {}) {
  const headers = { ...(options.body && { "Content-Type": "application/json" }), ...(token && { Authorization: `Bearer ${token}` }) };
  const response = await fetch(path, { ...options, headers }).catch(() => {
    throw new Failed("The gateway cannot be reached.");
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const problem = new Failed(body.detail || `The gateway answered ${response.status}.`);
    problem.status = response.status;
    throw problem;
  }
  return body;
}

// The model, with the OpenAPI document of its inputs.
export async function findModel() {
  return (await request("v1/models")).results[0];
}

// Run a prediction of a model; onText gets each piece. Returns the ended prediction. begun() gets what cancels it.
export async function predict(model, input, onText, begun) {
  const prediction = await request(`v1/models/${model}/predictions`, { method: "POST", body: JSON.stringify({ input }) });
  // keepalive: the request goes out although its page is being closed
  begun(() => request(`v1/predictions/${prediction.id}/cancel`, { method: "POST", keepalive: true }));
  const address = prediction.urls.stream.split("/").slice(-3).join("/"); // relative, so a proxy may add a prefix
  await follow(address, onText);
  return request(`v1/predictions/${prediction.id}`);
}

// EventSource comes back by itself with Last-Event-ID after a lost connection, and the stream goes on there.
function follow(address, onText) {
  return new Promise((resolve) => {
    const source = new EventSource(address);
    const end = () => {
      source.close();
      resolve();
    };
    source.addEventListener("output", (event) => onText(event.data));
    source.addEventListener("done", end);
    source.addEventListener("error", (event) => {
      if (event.data || source.readyState === EventSource.CLOSED) end();
    });
  });
}
