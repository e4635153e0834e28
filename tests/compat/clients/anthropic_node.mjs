// The official client of Anthropic for Node.
import Anthropic from "@anthropic-ai/sdk";
import { ANSWER, BASE_URL, FAIL, NotThere, PATIENCE_MS, PIXEL, PLAIN, STALL, TOLD, WEATHER, expect, fails, run } from "./harness.mjs";

const client = new Anthropic({ baseURL: BASE_URL, apiKey: "any", maxRetries: 0 });
const tool = {
  name: "weather",
  description: "Look it up.",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const user = (content) => [{ role: "user", content }];
const request = (service, content, fields = {}) => ({ model: service, max_tokens: 50, messages: user(content), ...fields });

async function told(service, message) {
  const use = message.content[0];
  expect(use.input, { city: "Bern" });
  const result = { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "rain" }] };
  const messages = [...user(WEATHER), { role: "assistant", content: message.content }, result];
  expect((await client.messages.create({ model: service, max_tokens: 50, messages, tools: [tool] })).content[0].text, TOLD);
}

const cases = {
  async answer(service) {
    expect((await client.messages.create(request(service, PLAIN))).content[0].text, ANSWER);
  },
  async stream(service) {
    const message = await client.messages.stream(request(service, PLAIN)).finalMessage();
    expect(message.content[0].text, ANSWER);
    expect(message.usage.output_tokens, 9);
  },
  async tools(service) {
    await told(service, await client.messages.create(request(service, WEATHER, { tools: [tool] })));
  },
  async "streamed tools"(service) {
    await told(service, await client.messages.stream(request(service, WEATHER, { tools: [tool] })).finalMessage());
  },
  async image(service) {
    const source = { type: "base64", media_type: "image/png", data: PIXEL };
    const content = [{ type: "image", source }, { type: "text", text: PLAIN }];
    expect((await client.messages.create(request(service, content))).content[0].text, ANSWER);
  },
  async error(service) {
    await fails(() => client.messages.create(request(service, FAIL)), Anthropic.RateLimitError, "asked to fail");
    await fails(() => client.messages.create(request("nobody", PLAIN)), Anthropic.NotFoundError, "names no service");
  },
  async timeout(service) {
    await fails(() => client.messages.create(request(service, STALL), { timeout: PATIENCE_MS }), Anthropic.APIConnectionTimeoutError);
  },
  async "count tokens"(service) {
    if (service === "over-openai") throw new NotThere();
    expect((await client.messages.countTokens({ model: service, messages: user(PLAIN) })).input_tokens, 42);
  },
};

await run(["@anthropic-ai/sdk"], cases, ["over-openai", "over-anthropic"]);
