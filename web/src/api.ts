// Asks the server. Whatever fails is thrown as a text that says what to do, and shown on the page.
import type { Found, Progress } from './types'

async function failure(response: Response): Promise<Error> {
  const text = await response.text()
  try {
    return new Error((JSON.parse(text) as { error: string }).error)
  } catch {
    return new Error(`${response.status} ${response.statusText}`)
  }
}

/** For how long an answer to a question is waited for, in ms. */
const WAIT = 60_000

const reach = async (url: string, init?: RequestInit): Promise<Response> => {
  const control = new AbortController()
  let late = false
  // What is sent may be long, and take its time.
  const timer = init?.method === 'POST' ? undefined : setTimeout(() => { late = true; control.abort() }, WAIT)
  init?.signal?.addEventListener('abort', () => control.abort())
  let response: Response
  try {
    response = await fetch(url, { ...init, signal: control.signal })
  } catch (error) {
    if (late) throw new Error('the explorer has not answered for a minute. If other tabs follow a run, close some: a browser has few connections to one server. Then load the page again')
    if ((error as Error).name === 'AbortError') throw error
    throw new Error('the explorer does not answer: is `tenure explore` still running?')
  } finally {
    clearTimeout(timer)
  }
  if (!response.ok) throw await failure(response)
  return response
}

export async function get<T>(path: string, query: Record<string, string> = {}): Promise<T> {
  const text = new URLSearchParams(query).toString()
  return (await (await reach(`/api/${path}${text && `?${text}`}`)).json()) as T
}

const post = (path: string, body: unknown) =>
  reach(`/api/${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })

export const postJson = async <T>(path: string, body: unknown): Promise<T> => (await (await post(path, body)).json()) as T
export const postText = async (path: string, body: unknown): Promise<string> => (await post(path, body)).text()

/** Hears what the server tells as it happens, until it has no more to tell. Aborting it ends that in the server too. */
export async function listen(
  path: string,
  query: Record<string, string>,
  onEvent: (name: string, data: unknown) => void,
  signal: AbortSignal,
): Promise<void> {
  const response = await reach(`/api/${path}?${new URLSearchParams(query)}`, { signal })
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    text += value
    let begin = 0
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n', begin)) {
      const lines = text.slice(begin, end).split('\n')
      begin = end + 2
      const field = (name: string) => lines.find(line => line.startsWith(`${name}:`))?.slice(name.length + 1).trim()
      const data = field('data')
      if (data !== undefined) onEvent(field('event') ?? '', JSON.parse(data))
    }
    text = text.slice(begin)
  }
}

/** Follows a search to its end. */
export async function follow(
  path: string,
  query: Record<string, string>,
  onProgress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Found> {
  let found: Found | undefined
  await listen(path, query, (name, data) => {
    if (name === 'end') found = data as Found
    else onProgress(data as Progress)
  }, signal)
  if (found === undefined) throw new Error('the search ended without a result')
  return found
}

export function save(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text]))
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}
