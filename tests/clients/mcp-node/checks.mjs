// What the SDKs for TypeScript must see of the MCP server. `checks.py` tries more, on the SDKs for Python; here each revision is tried by a client that
// speaks it, and streams are broken off, which these clients take up again.
//
// A *way* is one client on one transport in one revision: `name`, `revision`, `overHttp`, `keeps` (a connection has a session of its own; else one has
// to be named in each call), and `connect({ url, key })`, a connection with `tools()`, `call(name, args, { onprogress, signal })`, `read(uri)`,
// `log(level)`, `close()` and the list `logs`. Results are as on the wire.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'

import { Ajv2020 } from 'ajv/dist/2020.js'

import { KEY, URL_OF_SERVER, rest } from './environment.mjs'
import { proxy } from './proxy.mjs'

const TOOLS = ['ExecutePythonCode', 'GeneratePdfReport', 'GetSessionFile', 'ListSessionFiles', 'ReadSessionFile', 'RunShellCommand', 'SearchSessionFiles', 'UploadFileToSession']
const PATIENCE = 60_000
// Counts until it is stopped.
const COUNT = "import time\ncount = 0\nwhile True:\n    count += 1\n    print('counted', count, flush=True)\n    time.sleep(0.1)"

const textOf = (result) => result.content.filter((block) => block.type === 'text').map((block) => block.text).join('\n')
const blocks = (result, type) => result.content.filter((block) => block.type === type)
const execution = (result) => result.structuredContent.execution ?? result.structuredContent

/** Rejects with what it is waited for, where that takes too long. */
function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited too long for ${what}`)), PATIENCE)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** A promise, and how it is kept. */
function promised() {
  let keep
  const promise = new Promise((resolve) => (keep = resolve))
  return { promise, keep }
}

/** A connection, and the session that is named in each call where connections have none. */
class Talk {
  constructor(way, connection, session) {
    Object.assign(this, { way, connection, session })
  }

  async call(name, args = {}, options = {}) {
    const given = this.session && !args.sessionId ? { ...args, sessionId: this.session } : args
    const result = await within(this.connection.call(name, given, options), name)
    if (!this.way.keeps && !this.session && !args.sessionId) this.session = result.structuredContent.sessionId
    return result
  }

  python(pythonCode, more = {}, options = {}) {
    return this.call('ExecutePythonCode', { pythonCode, ...more }, options)
  }

  async value(code, more = {}) {
    const result = await this.python(code, more)
    assert.ok(!result.isError, textOf(result))
    assert.ok(textOf(result).includes(execution(result).result.text))
    return execution(result).result.text
  }
}

async function talking(way, work, { session, ...options } = {}) {
  const connection = await within(way.connect({ url: URL_OF_SERVER, key: KEY, ...options }), 'a connection')
  try {
    return await work(new Talk(way, connection, session))
  } finally {
    await connection.close()
  }
}

const schemas = () => new Ajv2020({ strict: false, formats: { 'date-time': true } })

async function listsTheTools(talk) {
  const tools = await talk.connection.tools()
  assert.deepEqual(tools.map((tool) => tool.name).sort(), TOOLS)
    for (const tool of tools) {
    assert.equal(tool.inputSchema.type, 'object')
    assert.ok(tool.inputSchema.properties.sessionId)
    schemas().compile(tool.inputSchema)
    schemas().compile(tool.outputSchema)
  }
}

async function keepsItsState(talk) {
  await talk.python('x = 40')
  assert.equal(await talk.value('x + 2'), '42')
  const named = `named-${randomUUID()}`
  assert.equal(await talk.value("globals().get('x', 'none')", { sessionId: named }), "'none'")
}

async function givesPicturesAndFiles(talk) {
  const valid = Object.fromEntries((await talk.connection.tools()).map((tool) => [tool.name, schemas().compile(tool.outputSchema)]))
  const code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nopen('bytes.bin', 'wb').write(bytes(range(256)))\nopen('text.csv', 'w').write('a,b\\n')\nNone"
  const result = await talk.python(code)
  assert.ok(valid.ExecutePythonCode(result.structuredContent), JSON.stringify(valid.ExecutePythonCode.errors))
  const [picture] = blocks(result, 'image')
  assert.equal(picture.mimeType, 'image/png')
  assert.equal(Buffer.from(picture.data, 'base64').subarray(1, 4).toString(), 'PNG')
  const links = Object.fromEntries(blocks(result, 'resource_link').map((link) => [link.name, link]))
  const [bytes] = await talk.connection.read(links['bytes.bin'].uri)
  assert.deepEqual([...Buffer.from(bytes.blob, 'base64')], [...Array(256).keys()])
  const [text] = await talk.connection.read(links['text.csv'].uri)
  assert.deepEqual([text.text, text.mimeType], ['a,b\n', 'text/csv'])
  await assert.rejects(talk.connection.read('file:///etc/passwd'))
  const listed = await talk.call('ListSessionFiles')
  assert.ok(valid.ListSessionFiles(listed.structuredContent), JSON.stringify(valid.ListSessionFiles.errors))
}

async function tellsFailuresAsResults(talk) {
  let result = await talk.python('1/0')
  assert.equal(result.isError, true)
  assert.match(textOf(result), /ZeroDivisionError/)
  result = await talk.call('ExecutePythonCode', {})
  assert.equal(result.isError, true)
  assert.match(textOf(result), /pythonCode/)
  result = await talk.call('RunShellCommand', { command: 'sleep 1', isBackground: true })
  assert.match(textOf(result), /foreground/)
}

/** Progress is told while code runs; what is cancelled is interrupted, and loses nothing. */
async function reportsProgressAndStops(talk) {
  await talk.python("kept = 'before'")
  const controller = new AbortController()
  const told = []
  const { promise: enough, keep } = promised()
  const onprogress = ({ progress }) => told.push(progress) === 2 && keep()
  const call = talk.connection.call('ExecutePythonCode', { pythonCode: COUNT, timeoutSeconds: 600, ...(talk.session && { sessionId: talk.session }) }, { onprogress, signal: controller.signal })
  call.catch(() => {})
  await within(Promise.race([enough, call]), 'progress')
  controller.abort('not needed any more')
  await assert.rejects(call)
  assert.ok(told[0] < told[1], `progress has to grow: ${told}`)
  const counted = await talk.value('count')
  assert.ok(Number(counted) > 0)
  assert.deepEqual([await talk.value('count'), await talk.value('kept')], [counted, "'before'"])
}

async function sendsLogsWhenAsked(talk) {
  await talk.python("print('nobody asked')")
  assert.deepEqual(talk.connection.logs, [])
  await talk.connection.log('info')
  await talk.python("print('somebody asked')")
  const seen = async () => {
    while (!talk.connection.logs.join('').includes('somebody asked')) await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await within(seen(), 'a message')
}

async function separatesConnections(way) {
  await talking(way, (one) =>
    talking(way, async (other) => {
      await one.python('mine = 1')
      assert.equal(await other.value("globals().get('mine', 'none')"), "'none'")
      assert.equal(await one.value('mine'), '1')
    }),
  )
}

/** The end of a connection is not the end of its session. */
async function findsItsSessionAgain(way) {
  const session = await talking(way, async (talk) => (await talk.python("left = 'behind'")).structuredContent.sessionId)
  await talking(way, async (talk) => assert.equal(await talk.value('left'), "'behind'"), { session })
}

async function refusesWrongKeys(way) {
  for (const key of ['wrong', undefined]) {
    await assert.rejects(
      talking(way, (talk) => talk.python('1'), { key }),
      (error) => /401|[Uu]nauthori[sz]ed/.test(`${error.name} ${error.message} ${error.code ?? ''} ${error.status ?? ''}`) || assert.fail(`${error.stack}`),
    )
  }
}

/** A stream that breaks off in mid-call is taken up again, and nothing that was said meanwhile is lost. */
async function takesUpBrokenStreams(way) {
  const through = await proxy(URL_OF_SERVER)
  try {
    await talking(
      way,
      async (talk) => {
        await talk.connection.log('info')
        const { structuredContent } = await talk.python("kept = 'before'")
        const { promise: begun, keep } = promised()
        const code = "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists('go.txt'):\n    time.sleep(0.05)\nprint('went', flush=True)\nkept + ' and after'"
        const call = talk.python(code, { timeoutSeconds: 600 }, { onprogress: keep })
        await within(Promise.race([begun, call]), 'progress')
        through.cut()
        await rest('PUT', `/v1/sessions/${structuredContent.sessionId}/files/go.txt`, new Uint8Array([1]))
        assert.equal(execution(await call).result.text, "'before and after'")
        const said = talk.connection.logs.join('')
        assert.ok(said.includes('begun') && said.includes('went'), said)
        assert.equal(said.split('begun').length, 2, `said twice: ${said}`)
      },
      { url: through.url },
    )
  } finally {
    await through.close()
  }
}

const TALKS = [listsTheTools, keepsItsState, givesPicturesAndFiles, tellsFailuresAsResults, reportsProgressAndStops, sendsLogsWhenAsked]

/** Tries every way; the arguments may name one check, and one way. */
export async function main(ways) {
  const [only = '', wanted = ''] = process.argv.slice(2)
  const asked = (check) => check.name.includes(only)
  let failed = 0
  const tried = async (way, name, check) => {
    const started = performance.now()
    try {
      await check()
      console.log(`ok    ${name} (${way.name}, ${((performance.now() - started) / 1000).toFixed(1)} s)`)
    } catch (error) {
      failed += 1
      console.log(`FAIL  ${name} (${way.name})\n${error.stack ?? error}`)
    }
  }
  for (const way of ways.filter((way) => way.name.includes(wanted))) {
    // They share one connection: starting a program takes its time.
    await tried(way, 'connects', () =>
      talking(way, async (talk) => {
        for (const check of TALKS.filter(asked)) await tried(way, check.name, () => check(talk))
      }),
    )
    const own = [separatesConnections]
    if (way.overHttp) own.push(findsItsSessionAgain, refusesWrongKeys)
    if (way.overHttp && way.keeps) own.push(takesUpBrokenStreams)
    for (const check of own.filter(asked)) await tried(way, check.name, () => check(way))
  }
  if (failed > 0) {
    console.log(`${failed} checks have failed`)
    process.exit(1)
  }
}
