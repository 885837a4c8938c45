// The official SDK for TypeScript, current major version, in each revision of the protocol, over HTTP and stdio.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'

import { main } from './checks.mjs'
import { COMMAND } from './environment.mjs'

const LOG_LEVEL = 'io.modelcontextprotocol/logLevel'

class Connection {
  constructor(client) {
    this.client = client
    this.logs = []
    client.setNotificationHandler('notifications/message', ({ params }) => void this.logs.push(params.data))
  }

  async tools() {
    return (await this.client.listTools()).tools
  }

  call(name, args, options) {
    // Where there is no connection to remember it, each request says what it wants to hear.
    const _meta = this.level && { [LOG_LEVEL]: this.level }
    return this.client.callTool({ name, arguments: args, ...(_meta && { _meta }) }, options)
  }

  async read(uri) {
    return (await this.client.readResource({ uri })).contents
  }

  async log(level) {
    if (this.client.getProtocolEra() === 'modern') this.level = level
    else await this.client.setLoggingLevel(level)
  }

  close() {
    return this.client.close()
  }
}

function way(revision, overHttp) {
  const modern = revision >= '2026'
  const connect = async ({ url, key }) => {
    const options = { supportedProtocolVersions: [revision], versionNegotiation: { mode: modern ? 'auto' : 'legacy' } }
    const client = new Client({ name: 'belljar-clients', version: '1' }, options)
    const connection = new Connection(client)
    const headers = key ? { Authorization: `Bearer ${key}` } : {}
    await client.connect(
      overHttp ? new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { requestInit: { headers } }) : new StdioClientTransport({ command: COMMAND[0], args: COMMAND.slice(1), stderr: 'inherit' }),
    )
    const settled = client.getNegotiatedProtocolVersion()
    if (settled !== revision) throw new Error(`asked for ${revision}, and got ${settled}`)
    return connection
  }
  return { name: `TypeScript SDK 2, ${revision}, ${overHttp ? 'http' : 'stdio'}`, revision, overHttp, keeps: !overHttp || !modern, connect }
}

await main([
  ...['2025-03-26', '2025-06-18', '2025-11-25', '2026-07-28'].map((revision) => way(revision, true)),
  way('2025-03-26', false),
  way('2026-07-28', false),
])
