import type { WriterTally } from './writer.ts'

/** What a run has found out. */
export interface TortureReport {
  seed: number
  group: string
  nodes: number
  seconds: number
  /** How long the client waited at most, in each fault of a kind. */
  faults: { kind: string; faults: number; medianMs: number; maxMs: number }[]
  writer: WriterTally
  /** The same, of the writer that QEMU writes for; null without one. */
  byQemu: { writer: WriterTally; faults: TortureReport['faults'] } | null
  /** Objects whose copies were held against each other at the end. */
  objectsCompared: number
  /** Nodes that ended by themselves, and were started again as systemd does. */
  restarts: number
  statusAnswers: number
  /** What is not as it must be; without any nothing was lost, and no two copies differ. */
  findings: string[]
}

export function describe(report: TortureReport): string {
  return [
    `${report.nodes} nodes on ${report.group}, seed ${report.seed}, ${report.seconds} s`,
    '',
    ...describeWriter(report),
    ...(report.byQemu ? ['through QEMU', '', ...describeWriter(report.byQemu)] : []),
    `copies compared      ${report.objectsCompared} objects`,
    `nodes that ended     ${report.restarts}`,
    `answers of status    ${report.statusAnswers}`,
    `lost or diverged     ${report.findings.length}`,
    ...report.findings.map((finding) => `  ${finding}`),
  ].join('\n')
}

function describeWriter({ writer, faults }: Pick<TortureReport, 'writer' | 'faults'>): string[] {
  const rows = faults.map((row) => [row.kind, String(row.faults), seconds(row.medianMs), seconds(row.maxMs)])
  const lines = [['FAULT', 'TIMES', 'STALL, MEDIAN', 'STALL, MAX'], ...rows].map(
    ([kind, ...figures]) => `${kind!.padEnd(17)}${figures.map((figure) => figure.padStart(15)).join('')}`,
  )
  const { acknowledged, sectorsChecked, connections, unanswered, refused } = writer
  return [
    ...lines,
    '',
    `acknowledged writes  ${acknowledged}, checked in ${sectorsChecked} sectors over ${connections} connections`,
    `unanswered writes    ${unanswered}; refused for want of space: ${refused}`,
    '',
  ]
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`
