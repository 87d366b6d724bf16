// What the server tells: src/explorer/story.rs and src/explorer/api.rs in types.

export type Tree = string | Tree[] | { [name: string]: Tree }

/** How a node's clock has run, since that many steps: src/explorer/pace.rs. */
export interface Pace { from: number; rate: 'fast' | 'true' | 'slow'; about: string }

export interface Lane { name: string; kind: string; pace?: Pace }

export type Bar = 'hold' | 'hook' | 'watch' | 'frozen'

export interface Portrait {
  role: string
  condition: string
  bar?: Bar
  epoch?: string
  facts?: [string, string][]
}

export interface Judged { name: string; always: boolean; is_true: boolean }

export interface Change { path: string[]; kind: 'added' | 'removed' | 'changed'; before?: Tree; after?: Tree }

export interface Moment {
  at: string
  lanes: Portrait[]
  properties?: Judged[]
  tree?: Tree
  changes?: Change[]
  fingerprint?: string
}

export interface Told {
  kind: string
  label: string
  actor?: number
  src?: number
  dst?: number
  msg?: string
  full?: string
}

export interface Sent { uid: string; dst: number; msg: string }

export interface Step extends Told {
  index?: number
  uid?: string
  again?: boolean
  idle?: boolean
  inferred?: boolean
  impossible?: boolean
  sends?: Sent[]
  pace?: Pace
  after: Moment
}

export interface Story {
  tenure_story: number
  title: string
  source: string
  clock: { unit: string; common: boolean; about: string }
  lanes: Lane[]
  first: Moment
  steps: Step[]
  back_to?: number
  notes?: string[]
  around?: Around
}

export interface NextAction extends Told { index: number; idle: boolean }

/** An action that leads from one of these states to another. */
export interface Way extends NextAction { from: number; to: number; sends?: { dst: number; msg: string }[] }

/** States around a story: src/explorer/around.rs. */
export interface Around {
  states: { path: string; distance: number; moment: Moment }[]
  ways: Way[]
  complete: boolean
}

export interface Shown {
  model: string
  path: string
  fingerprint: string
  properties: Judged[]
  within: boolean
  tree: Tree
  changes: Change[]
  actions: NextAction[]
}

export interface ModelRow { id: string; about: string; protocol: string; is_mutant: boolean; states: number | null }

export interface Exhibit {
  id: string
  protocol: string
  rule: string
  without: string
  link: string | null
  property: string
  steps: number | null
  path: string | null
  fingerprint: string | null
}

export interface Found {
  end: string
  unique: string
  generated: string
  depth: number
  seconds: number
  properties: { name: string; always: boolean; verdict: string; path: string | null; back_to?: number | null }[]
}

export interface Progress { unique: string; generated: string; depth: number; waiting: string; seconds: number }

export interface Timing {
  lease: string
  give_up: string
  renew: string
  hook: string
  clock_error_ppm: number
  safe: boolean
  need: string | null
  margin: string
  last_act: string
  takeover_earliest: string
  overlap: string
  smallest_lease: string | null
  largest_give_up: string | null
  largest_hook: string | null
  errors: string[]
}
