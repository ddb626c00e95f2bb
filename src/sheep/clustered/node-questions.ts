import { z } from 'zod'
import { StoreError } from '../../errors.ts'

const problem = z.object({
  kind: z.enum([
    'missing_object',
    'missing_copy',
    'different_copies',
    'orphan_object',
    'corrupt_block',
    'dangling_block',
    'wrong_account',
    'dangling_export',
  ]),
  detail: z.string(),
  where: z
    .object({ vdi: z.string(), snapshot: z.string(), offsetBytes: z.number(), lengthBytes: z.number() })
    .nullable(),
  isRepaired: z.boolean(),
})

/** What an audit of a part of the store has found. `busy`: parts of objects that were written each time. */
const audited = z.object({
  objects: z.int(),
  blocks: z.int(),
  /** Of VDIs whose account was compared with what there is. */
  accounts: z.int(),
  busy: z.int(),
  problems: z.array(problem),
  problemsTotal: z.int(),
})

/** What the nodes of a cluster may ask of each other as nodes. One row for each question: what it takes, and what is told. */
const question = <P extends z.ZodType, T extends z.ZodType>(params: P, told: T) => ({ params, told })

const nothing = z.object({})
const hold = z.object({ hold: z.string() })

export const QUESTIONS = {
  /** See HeldVdis. */
  hold_vdis: question(
    hold.extend({ names: z.array(z.string()) }),
    z.object({
      /** The entries that name this node as the owner of their families. */
      owners: z.array(z.int()),
      vdis: z.array(z.object({ name: z.string(), vid: z.int(), newVid: z.int() })),
    }),
  ),
  freeze_vdis: question(hold, nothing),
  release_vdis: question(hold, nothing),
  /** The last entry of the log that has taken effect there. */
  log_index: question(nothing, z.object({ index: z.int() })),
  /** It stops, soon after the answer. */
  stop: question(nothing, nothing),
  /** Of the owner: all objects of the family, on all nodes. */
  audit_family: question(z.object({ family: z.int(), repair: z.boolean() }), audited),
  /** Of the owner: some blocks of an object on all nodes, of which one cannot read them. Those are put right from the others. */
  mend_object: question(
    z.object({
      family: z.int(),
      /** Hexadecimal. */
      oid: z.string(),
      blocks: z.array(z.object({ first: z.int(), count: z.int() })),
    }),
    audited,
  ),
  /** What the node has copies of that belong to no VDI. */
  audit_node: question(z.object({ repair: z.boolean() }), audited),
  /** Of the owner: as VdiStore.listObjects. */
  list_objects: question(
    z.object({ vid: z.int(), from: z.int(), limit: z.int(), count: z.int() }),
    z.array(
      z.object({
        index: z.int(),
        vid: z.int(),
        allocatedBytes: z.int(),
        inheritedBytes: z.int(),
        nodes: z.array(z.string()),
      }),
    ),
  ),
  /** Whether a client of the node may have the lock of that name: see LockHolders. */
  has_holder: question(z.object({ name: z.string() }), z.object({ isThere: z.boolean() })),
  /** Of the node's disks; `allocatedBytes` is what the VDIs hold, each block once, whose families it owns or that fall to it. */
  node_space: question(
    nothing,
    z.object({ totalBytes: z.number(), freeBytes: z.number(), allocatedBytes: z.number(), failedDisks: z.int() }),
  ),
} as const

export type QuestionName = keyof typeof QUESTIONS
export type Params<N extends QuestionName> = z.output<(typeof QUESTIONS)[N]['params']>
export type Told<N extends QuestionName> = z.output<(typeof QUESTIONS)[N]['told']>

/** What a node answers. Rejections are StoreErrors, and reach who asked. */
export type NodeAnswers = { [N in QuestionName]: (params: Params<N>) => Promise<Told<N>> }

/** Rejects with InvalidParameters for what is no question of this version. */
export async function answerWith(answers: NodeAnswers, name: string, params: unknown): Promise<unknown> {
  if (!isQuestion(name)) throw new StoreError('InvalidParameters', `no node is asked for ${name}`)
  const asked = QUESTIONS[name].params.safeParse(params)
  if (!asked.success) throw new StoreError('InvalidParameters', `${name}: ${asked.error.issues[0]?.message}`)
  return (answers[name] as (params: unknown) => Promise<unknown>)(asked.data)
}

/** Rejects with InvalidParameters for what is no answer to it. */
export function toldOf<N extends QuestionName>(name: N, told: unknown): Told<N> {
  const parsed = QUESTIONS[name].told.safeParse(told)
  if (!parsed.success) throw new StoreError('InvalidParameters', `the answer to ${name} is none`)
  return parsed.data as Told<N>
}

const isQuestion = (name: string): name is QuestionName => Object.hasOwn(QUESTIONS, name)
