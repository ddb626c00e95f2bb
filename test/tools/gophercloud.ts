import { existsSync } from 'node:fs'
import path from 'node:path'
import { commandExists, testUnless } from './require-command.ts'
import { runCommand } from './run-command.ts'

/** The acceptance suite of gophercloud, which Terraform and the Cinder CSI driver are built on, as Debian packages its source. */

const GOPATH = '/usr/share/gocode'
const SOURCE = path.join(GOPATH, 'src/github.com/gophercloud/gophercloud')
const PROGRAMS = { go: 'golang-go', 'keystone-manage': 'keystone', 'glance-api': 'glance-api' }

const missing = Object.entries(PROGRAMS).flatMap(([program, name]) => (commandExists(program) ? [] : [name]))
if (!existsSync(SOURCE)) missing.push('golang-github-gophercloud-gophercloud-dev')

/** Whether there is all that the tests of `withGophercloud` need. */
export const isGophercloudThere = missing.length === 0
export const withGophercloud = testUnless(!isGophercloudThere && `apt-get install ${missing.join(' ')}`)

/** A package of the suite, built into `directory`. Its tests are run one at a time, in whatever order. */
export class AcceptanceTests {
  readonly #program: string

  private constructor(program: string) {
    this.#program = program
  }

  /** `name` is a package below `acceptance/openstack`. */
  static async build(name: string, directory: string): Promise<AcceptanceTests> {
    const program = path.join(directory, `${name.replaceAll('/', '-')}.test`)
    const words = ['go', 'test', '-c', '-vet=off', '-tags=acceptance', `-o=${program}`]
    const env = { GOPATH, GO111MODULE: 'off', GOFLAGS: '', GOCACHE: path.join(directory, 'go-cache') }
    await runCommand([...words, `./acceptance/openstack/${name}`], { cwd: SOURCE, env })
    return new AcceptanceTests(program)
  }

  /** Rejects with what the test printed when it fails, and when there is none of that name. */
  async run(test: string, env: Readonly<Record<string, string>>): Promise<void> {
    const printed = await runCommand([this.#program, '-test.v', `-test.run=^${test}$`], { env })
    if (!printed.includes(`--- PASS: ${test} `)) throw new Error(`${test} was not run:\n${printed}`)
  }

  /** The names of all tests that the package has. */
  async list(): Promise<string[]> {
    const printed = await runCommand([this.#program, '-test.list=.'])
    return printed.split('\n').filter((line) => line.startsWith('Test'))
  }
}
