// A proxy on loopback: adds the caller's key for clients that cannot send one, has requests rewritten, and breaks connections off, where a test asks
// for it. Everything else, Host and Origin among it, goes through as it is.

import http from 'node:http'

export async function proxy(target, { key, rewrite } = {}) {
  const upstream = new URL(target)
  const sockets = new Set()
  const server = http.createServer(async (request, response) => {
    let headers = [...request.rawHeaders]
    let body
    if (rewrite && request.method === 'POST') {
      body = await whole(request)
      const changed = rewrite(JSON.parse(body))
      if (changed) {
        body = JSON.stringify(changed.message)
        headers = without(headers, ['content-length', 'transfer-encoding', 'mcp-name'])
        headers.push('Content-Length', String(Buffer.byteLength(body)))
        if (changed.name && request.headers['mcp-name']) headers.push('Mcp-Name', changed.name)
      }
    }
    if (key) headers.push('Authorization', `Bearer ${key}`)
    const options = { host: upstream.hostname, port: upstream.port, method: request.method, path: request.url, headers, setHost: false }
    const forwarded = http.request(options, (answer) => {
      response.writeHead(answer.statusCode, answer.rawHeaders)
      response.flushHeaders()
      answer.pipe(response)
      answer.on('error', () => response.destroy())
    })
    forwarded.on('error', () => response.destroy())
    // Who asked and is gone does not wait for the answer.
    response.on('close', () => forwarded.destroy())
    if (body === undefined) request.pipe(forwarded)
    else forwarded.end(body)
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  const cut = () => sockets.forEach((socket) => socket.destroy())
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = () => {
    cut()
    return new Promise((resolve) => server.close(resolve))
  }
  return { url: `http://127.0.0.1:${server.address().port}`, cut, close }
}

async function whole(request) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

/** Headers as a flat list of names and values, without these. */
function without(headers, names) {
  return headers.filter((_, at) => !names.includes(headers[at - (at % 2)].toLowerCase()))
}
