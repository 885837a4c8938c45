// The official SDK for TypeScript, previous major version, over HTTP and stdio: what most programs use.

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { LATEST_PROTOCOL_VERSION, LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js'

import { main } from './checks.mjs'
import { COMMAND } from './environment.mjs'

class Connection {
  constructor(client) {
    this.client = client
    this.logs = []
    client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => void this.logs.push(params.data))
  }

  async tools() {
    return (await this.client.listTools()).tools
  }

  call(name, args, options) {
    return this.client.callTool({ name, arguments: args }, undefined, options)
  }

  async read(uri) {
    return (await this.client.readResource({ uri })).contents
  }

  async log(level) {
    await this.client.setLoggingLevel(level)
  }

  close() {
    return this.client.close()
  }
}

function way(overHttp) {
  const connect = async ({ url, key }) => {
    const client = new Client({ name: 'belljar-clients', version: '1' })
    const connection = new Connection(client)
    const headers = key ? { Authorization: `Bearer ${key}` } : {}
    await client.connect(
      overHttp ? new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { requestInit: { headers } }) : new StdioClientTransport({ command: COMMAND[0], args: COMMAND.slice(1) }),
    )
    return connection
  }
  const revision = LATEST_PROTOCOL_VERSION
  return { name: `TypeScript SDK 1, ${revision}, ${overHttp ? 'http' : 'stdio'}`, revision, overHttp, keeps: true, connect }
}

await main([way(true), way(false)])
