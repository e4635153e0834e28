// What the scripts of clients for Node share, as harness.py for those of Python.
import { readFileSync } from "node:fs";
import { join } from "node:path";

export const BASE_URL = process.env.COHORT_BASE_URL;
export const PLAIN = "Say hello.";
export const WEATHER = "What is the weather in Bern?";
export const LONG = "How long will it last?";
export const STALL = "stall";
export const FAIL = "fail 429";
export const ANSWER = "Hello, world.";
export const TOLD = "The tool said: rain";
export const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
export const PATIENCE_MS = 1000;

export class NotThere extends Error {}

export function expect(found, wanted) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`expected ${b}, got ${a}`);
}

export async function fails(call, kind, words = "") {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof kind) || !String(error).includes(words)) throw error;
    return;
  }
  throw new Error("no error was raised");
}

export async function run(packages, cases, services) {
  const versions = {};
  for (const name of packages) {
    versions[name] = JSON.parse(readFileSync(join(process.cwd(), "node_modules", name, "package.json"))).version;
  }
  console.log(JSON.stringify({ versions }));
  for (const [name, tried] of Object.entries(cases)) {
    for (const service of services) {
      let told = { ok: true };
      try {
        await tried(service);
      } catch (error) {
        told = error instanceof NotThere ? { ok: null } : { ok: false, why: `${error.name}: ${error.message}`.slice(0, 300) };
      }
      console.log(JSON.stringify({ case: name, service, ...told }));
    }
  }
}
