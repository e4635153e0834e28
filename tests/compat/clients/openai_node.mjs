// The official client of OpenAI for Node.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { ANSWER, BASE_URL, FAIL, LONG, NotThere, PATIENCE_MS, PIXEL, PLAIN, STALL, TOLD, WEATHER, expect, fails, run } from "./harness.mjs";

const client = new OpenAI({ baseURL: `${BASE_URL}/v1`, apiKey: "any", maxRetries: 0 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const tool = { type: "function", function: { name: "weather", description: "Look it up.", parameters, strict: true } };
const flat = { type: "function", ...tool.function };
const Forecast = z.object({ city: z.string(), days: z.number() });
const user = (content) => [{ role: "user", content }];
const chat = (fields, options) => client.chat.completions.create(fields, options);

async function told(service, message) {
  const call = message.tool_calls[0];
  expect(JSON.parse(call.function.arguments), { city: "Bern" });
  const messages = [...user(WEATHER), message, { role: "tool", tool_call_id: call.id, content: "rain" }];
  expect((await chat({ model: service, messages, tools: [tool] })).choices[0].message.content, TOLD);
}

const cases = {
  async answer(service) {
    expect((await chat({ model: service, messages: user(PLAIN) })).choices[0].message.content, ANSWER);
  },
  async stream(service) {
    let [text, usage] = ["", null];
    for await (const chunk of await chat({ model: service, messages: user(PLAIN), stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    expect(text, ANSWER);
    expect(usage.completion_tokens, 9);
  },
  async tools(service) {
    await told(service, (await chat({ model: service, messages: user(WEATHER), tools: [tool] })).choices[0].message);
  },
  async "streamed tools"(service) {
    const stream = client.chat.completions.stream({ model: service, messages: user(WEATHER), tools: [tool] });
    await told(service, (await stream.finalChatCompletion()).choices[0].message);
  },
  async "structured output"(service) {
    const response_format = zodResponseFormat(Forecast, "forecast");
    const done = await client.chat.completions.parse({ model: service, messages: user(LONG), response_format });
    expect(done.choices[0].message.parsed, { city: "Bern", days: 3 });
  },
  async image(service) {
    const image_url = { url: `data:image/png;base64,${PIXEL}` };
    const messages = user([{ type: "text", text: PLAIN }, { type: "image_url", image_url }]);
    expect((await chat({ model: service, messages })).choices[0].message.content, ANSWER);
  },
  async error(service) {
    await fails(() => chat({ model: service, messages: user(FAIL) }), OpenAI.RateLimitError, "asked to fail");
    await fails(() => chat({ model: "nobody", messages: user(PLAIN) }), OpenAI.NotFoundError, "names no service");
  },
  async timeout(service) {
    await fails(() => chat({ model: service, messages: user(STALL) }, { timeout: PATIENCE_MS }), OpenAI.APIConnectionTimeoutError);
  },
  async embeddings(service) {
    if (service === "over-anthropic") throw new NotThere();
    expect(Array.from((await client.embeddings.create({ model: service, input: "hi" })).data[0].embedding), [0.25, -0.5, 1]);
  },
  async responses(service) {
    expect((await client.responses.create({ model: service, input: PLAIN })).output_text, ANSWER);
    expect((await client.responses.stream({ model: service, input: PLAIN }).finalResponse()).output_text, ANSWER);
  },
  async "responses by id"(service) {
    const asked = await client.responses.create({ model: service, input: WEATHER, tools: [flat] });
    const input = [{ type: "function_call_output", call_id: asked.output[0].call_id, output: "rain" }];
    const done = await client.responses.create({ model: service, previous_response_id: asked.id, input, tools: [flat] });
    expect(done.output_text, TOLD);
  },
};

await run(["openai"], cases, ["over-openai", "over-anthropic"]);
