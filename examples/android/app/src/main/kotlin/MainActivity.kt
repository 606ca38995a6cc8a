package dev.sprat.student

import android.app.Activity
import android.os.Bundle
import android.view.ViewGroup.LayoutParams.MATCH_PARENT
import android.view.ViewGroup.LayoutParams.WRAP_CONTENT
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import java.util.concurrent.Executors

/** A text field, a button that sends or stops, and the conversation. */
class MainActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor()
    private val turns = ArrayList<Pair<String, String>>()
    private lateinit var log: TextView
    private lateinit var button: Button
    private lateinit var chat: Chat
    private lateinit var student: Student
    private var isAnswering = false

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val input = EditText(this)
        log = TextView(this)
        button = Button(this).apply { text = "Send"; isEnabled = false }
        button.setOnClickListener { if (isAnswering) chat.cancel() else send(input) }
        setContentView(column(input))
        worker.execute { load() }
    }

    override fun onDestroy() {
        if (::chat.isInitialized) chat.cancel()
        worker.execute { if (::student.isInitialized) student.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun column(input: EditText) = LinearLayout(this).apply {
        orientation = LinearLayout.VERTICAL
        fitsSystemWindows = true
        addView(ScrollView(context).apply { addView(log) }, LinearLayout.LayoutParams(MATCH_PARENT, 0, 1f))
        addView(input, LinearLayout.LayoutParams(MATCH_PARENT, WRAP_CONTENT))
        addView(button, LinearLayout.LayoutParams(MATCH_PARENT, WRAP_CONTENT))
    }

    private fun load() {
        val folder = ModelFolder(getExternalFilesDir(null)!!.resolve("model"))
        val message = try {
            student = Student(folder.path, capacity = 1024, threads = 4)
            chat = Chat(student, folder.tokenizer(), folder.ends)
            runOnUiThread { button.isEnabled = true }
            "Ready, offline.\n"
        } catch (error: Exception) {
            "${folder.path}: $error\nCopy the folder of `sprat export --format onnx` there: see README.md.\n"
        }
        runOnUiThread { log.text = message }
    }

    private fun send(input: EditText) {
        turns.add("user" to input.text.toString())
        input.text.clear()
        isAnswering = true
        button.text = "Stop"
        val before = "${log.text}\n> ${turns.last().second}\n"
        worker.execute {
            val answer = chat.answer(prompt(turns)) { text -> runOnUiThread { log.text = before + text } }
            runOnUiThread {
                turns.add("assistant" to answer)
                log.text = "$before$answer\n"
                isAnswering = false
                button.text = "Send"
            }
        }
    }
}
