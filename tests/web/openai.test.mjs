// The API by OpenAI's own client.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { startServer, eventually } from './server.mjs';

let server, client;
before(async () => {
  server = await startServer(['engine.queue_max=2', 'engine.sequences_max=2']);
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', maxRetries: 0 });
});
after(() => server.close());

const messages = [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'Tell me a story.' }];
const chat = (options) => client.chat.completions.create({ model: 'tiny', messages, max_tokens: 12, ...options });
const complete = (options) =>
  client.completions.create({ model: 'tiny', prompt: 'Once upon a time', max_tokens: 12, ...options });

test('models are listed and found', async () => {
  const { data } = await client.models.list();
  assert.deepEqual(data.map((model) => model.id), ['tiny']);
  assert.equal((await client.models.retrieve('tiny')).id, 'tiny');
  await assert.rejects(client.models.retrieve('gpt'), OpenAI.NotFoundError);
});

test('a model with a slash in its name is found', async () => {
  const other = await startServer(['api.model_name=org/tiny']);
  try {
    const models = new OpenAI({ baseURL: `${other.url}/v1`, apiKey: 'any', maxRetries: 0 }).models;
    assert.equal((await models.retrieve('org/tiny')).id, 'org/tiny');
    await assert.rejects(models.retrieve('org/other'), OpenAI.NotFoundError);
  } finally {
    await other.close();
  }
});

test('a chat answers with content and usage', async () => {
  const answer = await chat({ seed: 1 });
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.choices[0].message.role, 'assistant');
  assert.ok(['stop', 'length'].includes(answer.choices[0].finish_reason));
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test('a stream adds up to the whole answer', async () => {
  const whole = await chat({ seed: 7, ignore_eos: true });
  let text = '', usage, reason, roles = 0;
  for await (const chunk of await chat({ seed: 7, ignore_eos: true, stream: true, stream_options: { include_usage: true } })) {
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) {
      roles += choice.delta.role === 'assistant' ? 1 : 0;
      text += choice.delta.content ?? '';
      reason = choice.finish_reason ?? reason;
    }
  }
  assert.equal(roles, 1);
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(reason, 'length');
  assert.equal(usage.completion_tokens, 12);
  assert.ok(usage.prompt_tokens_details.cached_tokens > 0, 'the prompt was met before');
});

test('a seed gives the same answer, another one a different one', async () => {
  const text = async (seed) => (await complete({ seed, max_tokens: 30, ignore_eos: true })).choices[0].text;
  assert.equal(await text(3), await text(3));
  assert.notEqual(await text(3), await text(4));
});

test('stop strings end the text before them', async () => {
  const { choices: [{ text }] } = await complete({ temperature: 0, max_tokens: 20, ignore_eos: true });
  const stop = [...text].slice(5, 7).join('');
  const stopped = await complete({ temperature: 0, max_tokens: 20, ignore_eos: true, stop: [stop] });
  assert.equal(stopped.choices[0].text, text.slice(0, text.indexOf(stop)));
  assert.equal(stopped.choices[0].finish_reason, 'stop');
});

test('log-probabilities, biases and penalties', async () => {
  const answer = await chat({ temperature: 0, logprobs: true, top_logprobs: 3, ignore_eos: true });
  const { content } = answer.choices[0].logprobs;
  assert.equal(content.length, 12);
  for (const token of content) {
    assert.equal(token.top_logprobs.length, 3);
    assert.ok(token.logprob <= 0 && token.top_logprobs[0].logprob >= token.top_logprobs[2].logprob);
    assert.equal(Buffer.from(token.bytes).toString().length > 0 || token.token === '', true);
  }
  const { tokens: [forced] } = await (await fetch(`${server.url}/tokenize`,
    { method: 'POST', body: JSON.stringify({ prompt: 'e' }) })).json();
  const biased = await complete({ temperature: 0, logit_bias: { [forced]: 100 }, max_tokens: 5 });
  assert.equal(biased.choices[0].text, 'eeeee');
  const penalized = await complete({ temperature: 0, logit_bias: { [forced]: 1 }, frequency_penalty: 2, max_tokens: 30, ignore_eos: true });
  assert.equal(penalized.choices[0].finish_reason, 'length');
});

test('fields that others act on are refused by name, neutral ones are not', async () => {
  await chat({ tools: [], tool_choice: 'none', parallel_tool_calls: true, response_format: { type: 'text' },
    repetition_penalty: 1.0, min_tokens: 0, n: 1, store: false, metadata: { a: 'b' }, service_tier: 'auto', stop: null });
  await complete({ suffix: '', echo: false, best_of: 1, user: 'me' });
  for (const fields of [{ reasoning_effort: 'high' }, { response_format: { type: 'json_object' } }, { n: 2 },
    { chat_template_kwargs: { enable_thinking: false } }, { structured_outputs: { regex: 'a' } }, { max_token: 5 }]) {
    await assert.rejects(chat(fields), (error) =>
      error instanceof OpenAI.BadRequestError && error.param === Object.keys(fields)[0], JSON.stringify(fields));
  }
  await assert.rejects(chat({ max_token: 5 }), /did you mean max_tokens/);
});

test('offsets of completions lead to their tokens, and no likely token hides another', async () => {
  const { choices: [{ text, logprobs }] } = await complete({ logprobs: 5, max_tokens: 200, ignore_eos: true, seed: 3 });
  const characters = [...text];
  assert.equal(logprobs.text_offset.length, 200);
  logprobs.text_offset.forEach((offset, i) => {
    assert.ok(offset <= characters.length && offset >= (logprobs.text_offset[i - 1] ?? 0));
    const token = logprobs.tokens[i];
    if (!token.startsWith('bytes:')) {
      assert.equal(characters.slice(offset, offset + [...token].length).join(''), token);
    }
    assert.equal(Object.keys(logprobs.top_logprobs[i]).length, 5);
  });
});

test('several prompts, and prompts of token ids', async () => {
  const answer = await complete({ prompt: ['one', 'two'], temperature: 0 });
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
  assert.equal((await complete({ prompt: [5, 6, 7], temperature: 0 })).usage.prompt_tokens, 3);
});

test('errors are the client\'s own', async () => {
  await assert.rejects(chat({ model: 'gpt-4o' }), OpenAI.NotFoundError);
  await assert.rejects(chat({ temperature: -1 }), (error) =>
    error instanceof OpenAI.BadRequestError && error.param === 'temperature');
  await assert.rejects(chat({ tools: [{ type: 'function', function: { name: 'f' } }] }), OpenAI.BadRequestError);
  await assert.rejects(chat({ n: 2 }), OpenAI.BadRequestError);
  await assert.rejects(complete({ prompt: Array(5000).fill(5) }), (error) =>
    error.status === 413 && error.code === 'context_length_exceeded');
});

test('a stream aborted by the client frees its request', async () => {
  const stream = await complete({ stream: true, max_tokens: 4000, ignore_eos: true });
  for await (const chunk of stream) { assert.ok(chunk.id); break; }
  stream.controller.abort();
  await eventually(async () => {
    const state = await server.state();
    return state.running === 0 && state.pages_used === 0;
  });
});

test('a full queue is a rate limit with a time to try again', async () => {
  const long = () => complete({ max_tokens: 3000, ignore_eos: true, stream: true });
  const held = [];
  let refusal;
  try {
    for (let i = 0; i < 8 && !refusal; ++i) held.push(await long());
  } catch (error) {
    refusal = error;
  }
  assert.ok(refusal instanceof OpenAI.RateLimitError, `${refusal}`);
  assert.equal(refusal.headers.get('retry-after'), '1');
  for (const stream of held) stream.controller.abort();
  await eventually(async () => (await server.state()).running === 0);
  assert.ok((await chat({})).id);
});

test('many at once are all answered', async () => {
  const patient = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', maxRetries: 20 });
  const answers = await Promise.all(Array.from({ length: 8 }, (_, i) =>
    patient.completions.create({ model: 'tiny', prompt: `number ${i}`, max_tokens: 4, ignore_eos: true })));
  assert.ok(answers.every((answer) => answer.usage.completion_tokens === 4));
});
