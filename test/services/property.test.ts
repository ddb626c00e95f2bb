import { describeProperties } from './properties.ts'

describeProperties({ SQLite: 9, PostgreSQL: 3 })
