// What a link holds, and the address of what is shown.

/** Everything that a link holds. */
export interface Route {
  page: string
  id: string
  path: string
  fingerprint: string
  row: number | null
  actors: number[]
  query: string
  left: string
  right: string
  mended: boolean
  /** The path ends in a loop, which begins after this step. */
  loop: number | null
}

export function parse(hash: string): Route {
  const [place = '', text = ''] = hash.replace(/^#\/?/, '').split('?')
  const [page = '', id = ''] = place.split('/')
  const query = new URLSearchParams(text)
  const row = query.get('row')
  return {
    page,
    id: decodeURIComponent(id),
    path: query.get('path') ?? '',
    fingerprint: query.get('fp') ?? '',
    row: row === null ? null : Number(row) || 0,
    actors: (query.get('actors') ?? '').split('.').filter(Boolean).map(Number).filter(Number.isInteger),
    query: query.get('q') ?? '',
    left: query.get('left') ?? '',
    right: query.get('right') ?? '',
    mended: query.get('mended') === '1',
    loop: query.has('loop') ? Number(query.get('loop')) || 0 : null,
  }
}

export function print(route: Route): string {
  const query = new URLSearchParams()
  if (route.path) query.set('path', route.path)
  if (route.fingerprint) query.set('fp', route.fingerprint)
  if (route.row !== null) query.set('row', String(route.row))
  if (route.actors.length > 0) query.set('actors', route.actors.join('.'))
  if (route.query) query.set('q', route.query)
  if (route.left) query.set('left', route.left)
  if (route.right) query.set('right', route.right)
  if (route.mended) query.set('mended', '1')
  if (route.loop !== null) query.set('loop', String(route.loop))
  const text = query.toString()
  return `#/${route.page}${route.id && `/${encodeURIComponent(route.id)}`}${text && `?${text}`}`
}

/** How often and after how long what a browser has not taken is written again, in ms. */
const TRIES = 30
const AGAIN = 1000
let waiting: ReturnType<typeof setTimeout> | undefined
/** The address that was read or written last. */
let known: string | null = null

/** Where somebody has gone; none if that is where one is. */
export function arrived(): Route | null {
  if (location.hash === known) return null
  clearTimeout(waiting)
  known = location.hash
  return parse(known)
}

/** Writes the address: of a place to come back to, or of the same one. */
export function write(hash: string, isPlace: boolean): void {
  clearTimeout(waiting)
  attempt(hash, isPlace, TRIES)
}

function attempt(hash: string, isPlace: boolean, tries: number) {
  try {
    if (isPlace) history.pushState(null, '', hash)
    else history.replaceState(null, '', hash)
  } catch { /* too many in a while, like those that are dropped without a word */ }
  if (location.hash === hash) known = hash
  // A key that is held down writes more addresses than a browser takes in a while.
  else if (tries > 0) waiting = setTimeout(() => attempt(hash, false, tries - 1), AGAIN)
}
