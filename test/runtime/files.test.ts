import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { readTextFile, writeTextFile } from '../../src/runtime/files.ts'

it('replaces a file, whatever a process with the same id left when it was killed', () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'files-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const file = path.join(directory, 'secret')
  expect(readTextFile(file)).toBe(null)
  writeFileSync(`${file}.${process.pid}.tmp`, 'half', { mode: 0o644 })
  writeTextFile(file, 'old', 0o600)
  writeTextFile(file, 'new', 0o600)
  expect(readTextFile(file)).toBe('new')
  expect(statSync(file).mode & 0o777).toBe(0o600)
  expect(readdirSync(directory)).toEqual(['secret'])
})
