// What the clients here share: where the server is, as in `common.py`, and the native routes for what is not the clients' business.

export const URL_OF_SERVER = process.env.BELLJAR_URL.replace(/\/+$/, '')
export const KEY = process.env.BELLJAR_KEY
/** The program over stdio: a command with its arguments. */
export const COMMAND = JSON.parse(process.env.BELLJAR_MCP_COMMAND ?? '[]')

/** Asks the native routes. */
export async function rest(method, path, body) {
  const headers = { Authorization: `Bearer ${KEY}`, 'Content-Type': typeof body === 'string' ? 'application/json' : 'application/octet-stream' }
  const response = await fetch(URL_OF_SERVER + path, { method, headers, body })
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
  return response.status === 204 ? null : response.json().catch(() => null)
}
