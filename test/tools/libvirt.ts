import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { ForeignServer, isListening } from './foreign-server.ts'
import { runCommand } from './run-command.ts'
import { Started } from './started.ts'

export const LIBVIRT_PROGRAMS = {
  libvirtd: 'libvirt-daemon-system',
  virsh: 'libvirt-clients',
  'qemu-system-x86_64': 'qemu-system-x86',
}

/** Where libvirt keeps what it knows: a directory of the test is mounted over each, so that it meets none of the host's machines. */
const PLACES = { etc: '/etc/libvirt', lib: '/var/lib/libvirt', cache: '/var/cache/libvirt', log: '/var/log/libvirt' }

/** Machines run as who runs the test; nobody else has to open their files. */
const QEMU_SETTINGS = `
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
`

/** A libvirtd of the system's, with machines of its own, in a mount namespace. Wants root. */
export class Libvirt {
  readonly #directory: string
  readonly #started: Started

  private constructor(directory: string, started: Started) {
    this.#directory = directory
    this.#started = started
  }

  static async start(): Promise<Libvirt> {
    const started = new Started()
    const directory = mkdtempSync(path.join(tmpdir(), 'collie-libvirt-'))
    started.onStop(() => rmSync(directory, { recursive: true, force: true }))
    const at = (name: string) => path.join(directory, name)
    try {
      for (const name of Object.keys(PLACES)) mkdirSync(at(name))
      writeFileSync(at('etc/qemu.conf'), QEMU_SETTINGS)
      writeFileSync(at('libvirtd.conf'), `unix_sock_dir = "${directory}"\nauth_unix_rw = "none"\nlog_level = 3\n`)
      const mounts = Object.entries(PLACES).map(
        ([name, place]) => `mkdir -p ${place} && mount --bind ${at(name)} ${place}`,
      )
      const libvirtd = `exec libvirtd --config ${at('libvirtd.conf')}`
      const script = [...mounts, 'mount -t tmpfs none /run', libvirtd].join(' && ')
      started.keep(
        await ForeignServer.start({
          words: ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script],
          url: () => isListening({ path: at('libvirt-sock') }),
        }),
      )
      const libvirt = new Libvirt(directory, started)
      started.onStop(() => libvirt.#endMachines())
      return libvirt
    } catch (error) {
      await started.stop()
      throw error
    }
  }

  /** As clients want it. */
  get uri(): string {
    return `qemu+unix:///system?socket=${path.join(this.#directory, 'libvirt-sock')}`
  }

  /** What `virsh` prints. */
  ask(...words: string[]): Promise<string> {
    return runCommand(['virsh', '--connect', this.uri, ...words])
  }

  /** The names of the machines that run. */
  async machines(): Promise<string[]> {
    return (await this.ask('list', '--name')).split('\n').filter((name) => name !== '')
  }

  async stop(): Promise<void> {
    await this.#started.stop()
  }

  /** They would outlive libvirtd. */
  async #endMachines(): Promise<void> {
    for (const name of await this.machines()) await this.ask('destroy', name)
  }
}
