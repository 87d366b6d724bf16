// The page: its address, its keys, its colours, and what went wrong.
import { render } from 'preact'
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { Explore, ModelList } from './explore'
import { Live } from './live'
import { Compare, Config, Gallery, Open } from './pages'
import { arrived, parse, print, type Route, write } from './route'
import { branch, ways } from './story'
import { Actions, StoryView, type Where } from './view'
import type { Story, Way } from './types'

const KEYS = [
  ['↓ → j', 'one step on'], ['↑ ← k', 'one step back'], ['Home End', 'the beginning, the end'], ['/', 'search'],
  ['n N', 'the next, the last hit'], ['c', 'only the causal cone of this step'], ['t', 'diagram or text'], ['?', 'these keys'],
] as const

function Help({ open, onClose }: { open: boolean; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    if (open) dialog.current?.showModal?.()
    else dialog.current?.close?.()
  }, [open])
  return (
    <dialog ref={dialog} onClose={onClose} aria-label="Keys">
      <h2>Keys</h2>
      <dl>{KEYS.map(([key, what]) => <div key={key}><dt><kbd>{key}</kbd></dt><dd>{what}</dd></div>)}</dl>
      <button type="button" class="button" onClick={onClose}>Close</button>
    </dialog>
  )
}

const THEMES = ['system', 'light', 'dark'] as const

function useTheme() {
  const [theme, setTheme] = useState<string>(() => { try { return localStorage.getItem('theme') ?? 'system' } catch { return 'system' } })
  useEffect(() => {
    if (theme === 'system') delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = theme
    try { localStorage.setItem('theme', theme) } catch { /* a file that is opened from a disk may have no storage */ }
  }, [theme])
  return [theme, () => setTheme(THEMES[(THEMES.indexOf(theme as 'system') + 1) % THEMES.length])] as const
}

function useHelp() {
  const [help, setHelp] = useState(false)
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key === '?' && !(event.target as HTMLElement).closest('input:not([type=range]), textarea, select')) setHelp(is => !is)
    }
    document.addEventListener('keydown', onKey)
    return () => document.removeEventListener('keydown', onKey)
  }, [])
  return [help, setHelp] as const
}

const PAGES = [['', 'Gallery'], ['models', 'Models'], ['compare', 'Compare'], ['open', 'Traces'], ['config', 'Timing']] as const

function App() {
  const [route, setRoute] = useState(() => arrived() ?? parse(location.hash))
  const [problem, setProblem] = useState<Error | null>(null)
  const [theme, nextTheme] = useTheme()
  const [help, setHelp] = useHelp()
  // Before anything else can happen: who is sent on as soon as the page is there would be left behind.
  useLayoutEffect(() => {
    const onHash = () => {
      const route = arrived()
      if (route === null) return
      setRoute(route)
      setProblem(null)
    }
    addEventListener('hashchange', onHash)
    onHash()
    return () => removeEventListener('hashchange', onHash)
  }, [])
  const go = useCallback((change: Partial<Route>) => {
    setRoute(old => {
      const next = { ...old, ...change }
      // A new path is a place to come back to; a row, a filter and a search are not.
      write(print(next), change.path !== undefined && change.path !== old.path)
      return next
    })
  }, [])
  const page = route.page === 'opened' ? 'open' : route.page
  const current = page === 'model' ? 'models' : page === 'live' ? 'open' : page
  useEffect(() => { document.title = `${route.id || PAGES.find(([key]) => key === current)?.[1] || 'tenure'} – tenure explorer` }, [route.id, current])
  return (
    <>
      <a class="skip" href="#content" onClick={event => { event.preventDefault(); document.getElementById('content')?.focus() }}>Skip to the content</a>
      <header>
        <a class="brand" href="#/"><img src="icon.svg" alt="" width="26" height="26" /> tenure <span>explorer</span></a>
        <nav aria-label="Pages">
          {PAGES.map(([key, name]) => <a key={key} href={`#/${key}`} aria-current={current === key ? 'page' : undefined}>{name}</a>)}
        </nav>
        <button type="button" class="ghost" onClick={nextTheme} title="Colours: system, light, dark">{theme === 'dark' ? '☾' : theme === 'light' ? '☀' : '◐'} <span class="wide">{theme}</span></button>
        <button type="button" class="ghost" onClick={() => setHelp(true)} aria-label="Keys">?</button>
      </header>
      {problem && <div class="problem" role="alert"><span>{problem.message}</span><button type="button" onClick={() => setProblem(null)} aria-label="Dismiss">✕</button></div>}
      <main id="content" tabIndex={-1}>
        {page === '' && <Gallery onProblem={setProblem} />}
        {page === 'models' && <ModelList onProblem={setProblem} />}
        {page === 'model' && <Explore route={route} go={go} onProblem={setProblem} />}
        {page === 'compare' && <Compare route={route} go={go} onProblem={setProblem} key="compare" />}
        {page === 'open' && <Open route={route} go={go} onProblem={setProblem} />}
        {page === 'live' && <Live route={route} go={go} onProblem={setProblem} />}
        {page === 'config' && <Config onProblem={setProblem} />}
        {!['', 'models', 'model', 'compare', 'open', 'live', 'config'].includes(page) && <p class="page">There is no such page: go to the <a href="#/">gallery</a>.</p>}
      </main>
      <Help open={help} onClose={() => setHelp(false)} />
    </>
  )
}

/** A file that holds its story, and needs no server. */
function Report({ story: whole }: { story: Story }) {
  const [story, setStory] = useState(whole)
  const [where, setWhere] = useState<Where>({ row: 0, actors: [], query: '' })
  const [theme, nextTheme] = useTheme()
  const [help, setHelp] = useHelp()
  const row = Math.min(where.row, story.steps.length)
  const next = whole.around && ways(story, row)
  const take = (way: Way) => {
    setStory(branch(story, row, way))
    setWhere(old => ({ ...old, row: row + 1 }))
  }
  const actions = whole.around && (
    <>
      <h3>What can happen next</h3>
      {story !== whole && <p><button type="button" class="button" onClick={() => setStory(whole)}>Back to the story of this report</button></p>}
      {next === null && <p class="quiet">This report does not hold what follows here.</p>}
      <Actions actions={next ?? []} onTake={take} />
    </>
  )
  return (
    <>
      <header>
        <span class="brand">tenure <span>report</span></span><span class="spacer" />
        <button type="button" class="ghost" onClick={nextTheme} title="Colours: system, light, dark">{theme}</button>
        <button type="button" class="ghost" onClick={() => setHelp(true)} aria-label="Keys">?</button>
      </header>
      <main id="content" class="page">
        <h1>{story.title}</h1>
        <StoryView story={story} where={where} onWhere={change => setWhere(old => ({ ...old, ...change }))} onProblem={() => undefined} actions={actions} offline />
      </main>
      <Help open={help} onClose={() => setHelp(false)} />
    </>
  )
}

const root = document.getElementById('app')
if (root) {
  const baked = document.getElementById('story')
  const story = baked ? (JSON.parse(baked.textContent ?? 'null') as Story | string) : null
  render(story !== null && typeof story === 'object' ? <Report story={story} /> : <App />, root)
}
